"""Users, service accounts, tokens, roles and grants."""
