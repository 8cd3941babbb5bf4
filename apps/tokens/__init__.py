"""The tokens app: what the calls of the journal cost and took, from a month down to one line of the log."""
