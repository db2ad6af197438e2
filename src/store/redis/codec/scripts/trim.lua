-- Drops entries past their retention from a user's index.
-- KEYS user
-- Reply: number of dropped entries
-- Why a script: the index is read and pruned in one step.
local _, _, dropped = sessions(1)
return dropped
