"""Going through a day of the journal, segment by segment, and saying what came of it; it knows no feature."""
