-- Stretches of the audit hash chain that the retention removed. A signature stands for each.
CREATE TABLE audit_removals (
    first_number  BIGINT PRIMARY KEY,
    last_number   BIGINT NOT NULL,
    previous_link BYTEA   NOT NULL,
    link          BYTEA   NOT NULL,
    at            BIGINT NOT NULL,
    public_key    BYTEA   NOT NULL,
    signature     BYTEA   NOT NULL
);
