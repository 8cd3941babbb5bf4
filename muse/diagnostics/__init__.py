"""Answers about a configuration: check, health, what-if, and what a project's files claim."""
