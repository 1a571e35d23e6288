-- One row: which life of the store this is, and where it lives.
CREATE TABLE store (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    epoch         TEXT    NOT NULL,
    home          TEXT    NOT NULL,
    began_at      INTEGER NOT NULL,
    first_user_at INTEGER
) STRICT;

-- The change log. A row of a config is also a version of it; rows of other kinds have a subject instead.
CREATE TABLE changes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    kind             TEXT    NOT NULL,
    tenant           TEXT,
    integration_type TEXT,
    version          INTEGER,
    subject          INTEGER,
    key_id           BLOB,
    body             BLOB,
    saved_by         INTEGER,
    saved_at         INTEGER NOT NULL,
    note             TEXT
) STRICT;
-- The whole concurrency control of saves.
CREATE UNIQUE INDEX changes_version ON changes (tenant, integration_type, version);

CREATE TABLE audit (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    at               INTEGER NOT NULL,
    action           TEXT    NOT NULL,
    outcome          TEXT    NOT NULL,
    actor            INTEGER,
    token_id         INTEGER,
    address          TEXT,
    request_id       TEXT,
    tenant           TEXT,
    integration_type TEXT,
    version          INTEGER,
    subject          TEXT,
    digest           BLOB,
    mac              BLOB    NOT NULL,
    change_id        INTEGER
) STRICT;
CREATE INDEX audit_config ON audit (tenant, integration_type, version);

-- Wrapped keys: a tenant's (purpose config), and the store's own. Destroyed keys keep their id and lose their bytes.
CREATE TABLE keys (
    id            BLOB    PRIMARY KEY,
    purpose       TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    master_key_id BLOB    NOT NULL,
    wrapped       BLOB,
    made_at       INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX keys_active ON keys (purpose, tenant) WHERE wrapped IS NOT NULL;

CREATE TABLE users (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    login      TEXT    NOT NULL UNIQUE,
    password   TEXT,
    grants     TEXT    NOT NULL,
    is_admin   INTEGER NOT NULL,
    disabled   INTEGER NOT NULL,
    added_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    hash       BLOB    NOT NULL UNIQUE,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    is_session INTEGER NOT NULL,
    label      TEXT    NOT NULL,
    grants     TEXT,
    made_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_user ON tokens (user_id);

CREATE TABLE login_attempts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    login   BLOB    NOT NULL,
    address TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX login_attempts_login ON login_attempts (login, at);
CREATE INDEX login_attempts_at ON login_attempts (at);

-- Idempotency records: what a request with an Idempotency-Key came to.
CREATE TABLE replays (
    user_id  INTEGER NOT NULL,
    route    TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    mac      BLOB    NOT NULL,
    version  INTEGER NOT NULL,
    outcome  TEXT    NOT NULL,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, route, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX replays_saved_at ON replays (saved_at);
