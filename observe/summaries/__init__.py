"""Enrichments and summaries of a segment."""
