-- The role and the database of Confide. Run it once on the leader, as the superuser.
CREATE ROLE confide LOGIN PASSWORD 'replace-confide-password';
CREATE DATABASE confide OWNER confide;
