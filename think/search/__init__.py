"""Search over the journal's entries: the query, the index and its SQLite schema."""
