"""Pages of insights: stored, protected against overwriting, formatted."""
