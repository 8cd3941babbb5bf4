"""What the journal holds, read: entries, the parts of a day, who was there; nothing here asks a model or writes."""
