"""From a context to its route, fallback targets and the reason for both."""
