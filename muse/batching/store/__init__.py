"""The batch store: requests and results in SQLite, so that a batch resumes after a crash."""
