"""Batches handed to a provider's own batch service: upload, poll, fetch."""
