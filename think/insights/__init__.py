"""Topics defined by files: read, asked, checked against the journal, stored."""
