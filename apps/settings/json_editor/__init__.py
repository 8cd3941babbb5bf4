"""The editor of journal.json as text, with completion by its schema."""
