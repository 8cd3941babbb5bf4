"""Transcripts of any recorder as utterances, chunks and ranked sentences. No model is called."""
