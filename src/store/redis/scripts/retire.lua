-- Moves ended sessions from those alive to those ended, of which only the latest are kept.
-- ARGV members · reply members to forget
return retire(ARGV)
