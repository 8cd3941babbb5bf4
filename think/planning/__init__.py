"""Agents out of wishes."""
