"""The search index of the journal."""
