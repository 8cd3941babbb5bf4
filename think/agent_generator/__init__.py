"""`muse plan`: an agent generated from a description."""
