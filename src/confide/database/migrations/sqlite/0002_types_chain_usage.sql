-- Integration types: every version of each, the highest one in force; a removed one has no schema.
CREATE TABLE types (
    name     TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    schema   TEXT,
    mode     TEXT    NOT NULL,
    keep     INTEGER NOT NULL,
    saved_by INTEGER NOT NULL,
    saved_at INTEGER NOT NULL,
    note     TEXT,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- The one chain of the audit: each link covers the link before it and the entry.
CREATE TABLE audit_links (
    number   INTEGER PRIMARY KEY,
    audit_id INTEGER NOT NULL UNIQUE,
    link     BLOB    NOT NULL
) STRICT;

-- Signed states of the chain.
CREATE TABLE checkpoints (
    number     INTEGER PRIMARY KEY,
    link       BLOB    NOT NULL,
    at         INTEGER NOT NULL,
    public_key BLOB    NOT NULL,
    signature  BLOB    NOT NULL
) STRICT;

-- Who read what, when last and how often.
CREATE TABLE usage (
    tenant           TEXT    NOT NULL,
    integration_type TEXT    NOT NULL,
    token_id         INTEGER NOT NULL,
    -- Whose token it was, for when it is gone.
    user_id          INTEGER,
    label            TEXT,
    last_read_at     INTEGER NOT NULL,
    reads            INTEGER NOT NULL,
    PRIMARY KEY (tenant, integration_type, token_id)
) STRICT, WITHOUT ROWID;

-- Whose turn a chore is: nobody begins it again before then.
CREATE TABLE turns (
    name  TEXT    PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The log holds everything after this place; what came before it may be gone.
ALTER TABLE store ADD COLUMN begins_xid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN begins_id INTEGER NOT NULL DEFAULT 0;
