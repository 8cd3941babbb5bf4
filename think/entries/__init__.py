"""What the journal holds: entries, sections of a day, people, transcripts. Nothing is written, no model called."""
