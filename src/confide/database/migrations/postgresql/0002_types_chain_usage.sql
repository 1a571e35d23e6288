-- Integration types: every version of each, the highest one in force; a removed one has no schema.
CREATE TABLE types (
    name     TEXT   COLLATE "C" NOT NULL,
    version  BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    schema   TEXT,
    mode     TEXT   NOT NULL,
    keep     BIGINT NOT NULL,
    saved_by BIGINT NOT NULL,
    saved_at BIGINT NOT NULL,
    note     TEXT,
    PRIMARY KEY (name, version)
);

-- The one chain of the audit: each link covers the link before it and the entry.
CREATE TABLE audit_links (
    number   BIGINT PRIMARY KEY,
    audit_id BIGINT NOT NULL UNIQUE,
    link     BYTEA  NOT NULL
);

-- Signed states of the chain.
CREATE TABLE checkpoints (
    number     BIGINT PRIMARY KEY,
    link       BYTEA  NOT NULL,
    at         BIGINT NOT NULL,
    public_key BYTEA  NOT NULL,
    signature  BYTEA  NOT NULL
);

-- Who read what, when last and how often.
CREATE TABLE usage (
    tenant           TEXT   COLLATE "C" NOT NULL,
    integration_type TEXT   COLLATE "C" NOT NULL,
    token_id         BIGINT NOT NULL,
    -- Whose token it was, for when it is gone.
    user_id          BIGINT,
    label            TEXT,
    last_read_at     BIGINT NOT NULL,
    reads            BIGINT NOT NULL,
    PRIMARY KEY (tenant, integration_type, token_id)
);

-- Whose turn a chore is: nobody begins it again before then.
CREATE TABLE turns (
    name  TEXT   PRIMARY KEY,
    until BIGINT NOT NULL
);

-- The log holds everything after this place; what came before it may be gone.
ALTER TABLE store ADD COLUMN begins_xid BIGINT NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN begins_id BIGINT NOT NULL DEFAULT 0;
