"""Diagnostics of a configuration: checks, health, what-if comparisons, and what a project's files claim."""
