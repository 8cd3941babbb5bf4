"""What is told of a segment, from what was said and seen on it: enrichments and summaries."""
