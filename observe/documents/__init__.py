"""Date, parts and utterances of a pasted transcript or document."""
