-- Moves ended sessions from those alive to those ended, of which only the latest are kept.
-- KEYS user · ARGV ids · reply ids to forget
return retire(ARGV)
