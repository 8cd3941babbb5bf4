"""The topics of files: read, asked, checked against the journal, kept."""
