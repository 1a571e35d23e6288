-- Rows that decide about access carry a counter and a MAC. They become NOT NULL when the rows of an existing store are
-- signed, because processes of the release before add rows without them until then.
ALTER TABLE store ADD COLUMN signed_at INTEGER;
ALTER TABLE store ADD COLUMN counter INTEGER;
ALTER TABLE store ADD COLUMN mac BLOB;
ALTER TABLE keys ADD COLUMN counter INTEGER;
ALTER TABLE keys ADD COLUMN mac BLOB;
-- A removed user stays, with another login.
ALTER TABLE users ADD COLUMN removed_at INTEGER;
ALTER TABLE users ADD COLUMN counter INTEGER;
ALTER TABLE users ADD COLUMN mac BLOB;
-- A revoked token has expired, and its row is kept until the token would have.
ALTER TABLE tokens ADD COLUMN kept_until INTEGER;
ALTER TABLE tokens ADD COLUMN counter INTEGER;
ALTER TABLE tokens ADD COLUMN mac BLOB;
ALTER TABLE types ADD COLUMN counter INTEGER;
ALTER TABLE types ADD COLUMN mac BLOB;
