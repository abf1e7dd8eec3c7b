"""Projects, members, tokens, secrets, publishers and the audit log."""
