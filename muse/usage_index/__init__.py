"""The SQLite index over the usage log, for pages and commands."""
