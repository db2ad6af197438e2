-- Drops from a user's index what has had its time.
-- KEYS user · reply how many those were
local _, _, dropped = sessions(1)
return dropped
