"""Agents: who there is, what runs now, what ran, and each run as a page."""
