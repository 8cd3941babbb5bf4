"""Tables in docs/ that are generated from the code."""
