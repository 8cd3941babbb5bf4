"""Rows of a batch in and out: CSV, JSON Lines, Parquet, and prompt templates."""
