"""Execution of one prepared call: tries, fallbacks, hedging, streams."""
