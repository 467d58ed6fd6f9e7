"""The program in which people decide: `make review`. `session` says what comes next, `painting` draws it, `server` and `page/` show it."""
