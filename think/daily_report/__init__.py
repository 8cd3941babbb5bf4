"""What `muse daily` did for a day: its state and its report."""
