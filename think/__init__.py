"""What helps the journal's owner think: search, insight, planning; it knows no vendor."""
