-- Rows that decide about access carry a counter and a MAC. They become NOT NULL when the rows of an existing store are
-- signed, because processes of the release before add rows without them until then.
ALTER TABLE store ADD COLUMN signed_at BIGINT;
ALTER TABLE store ADD COLUMN counter BIGINT;
ALTER TABLE store ADD COLUMN mac BYTEA;
ALTER TABLE keys ADD COLUMN counter BIGINT;
ALTER TABLE keys ADD COLUMN mac BYTEA;
-- A removed user stays, with another login.
ALTER TABLE users ADD COLUMN removed_at BIGINT;
ALTER TABLE users ADD COLUMN counter BIGINT;
ALTER TABLE users ADD COLUMN mac BYTEA;
-- A revoked token has expired, and its row is kept until the token would have.
ALTER TABLE tokens ADD COLUMN kept_until BIGINT;
ALTER TABLE tokens ADD COLUMN counter BIGINT;
ALTER TABLE tokens ADD COLUMN mac BYTEA;
ALTER TABLE types ADD COLUMN counter BIGINT;
ALTER TABLE types ADD COLUMN mac BYTEA;
