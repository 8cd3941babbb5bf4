"""Agent-run files: written, followed, listed, controlled, continued."""
