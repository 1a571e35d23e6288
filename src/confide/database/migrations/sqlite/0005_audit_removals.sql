-- Stretches of the audit hash chain that the retention removed. A signature stands for each.
CREATE TABLE audit_removals (
    first_number  INTEGER PRIMARY KEY,
    last_number   INTEGER NOT NULL,
    previous_link BLOB    NOT NULL,
    link          BLOB    NOT NULL,
    at            INTEGER NOT NULL,
    public_key    BLOB    NOT NULL,
    signature     BLOB    NOT NULL
) STRICT;
