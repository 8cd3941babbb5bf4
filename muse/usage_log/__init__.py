"""The append-only usage log with prices and totals."""
