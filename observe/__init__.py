"""What is made of screens, recordings, transcripts and documents; feature code that names contexts, no vendor."""
