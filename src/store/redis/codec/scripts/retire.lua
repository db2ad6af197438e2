-- Marks sessions as ended in their user's index, which keeps only the latest ended ones.
-- KEYS user
-- ARGV ids
-- Reply: ids of the sessions whose keys have to be deleted
-- Why a script: the index is read and pruned in one step.
return retire(ARGV)
