"""Batches: bounded concurrency, a store that survives crashes, provider batch services, Ray."""
