"""What is done with the files of runs (`muse.runs`): they are followed, listed, and talked to."""
