"""Consent to a project's files that name commands, code or addresses."""
