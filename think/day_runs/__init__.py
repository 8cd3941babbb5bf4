"""What `muse daily` did for a day, kept and shown; nothing here does any of it."""
