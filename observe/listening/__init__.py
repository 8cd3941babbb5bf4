"""Transcripts of any recorder as utterances, in pieces, by their telling sentences; it asks nothing."""
