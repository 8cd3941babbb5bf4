"""What is found out about a pasted transcript or document: its date, its parts, its utterances."""
