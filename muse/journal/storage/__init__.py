"""Files and SQLite databases that survive crashes and concurrent writers."""
