-- The number of the epoch. A database from before this migration counts as in its first one.
ALTER TABLE store ADD COLUMN epoch_number INTEGER NOT NULL DEFAULT 1;
