"""Parts that commands share: arguments, consoles, progress, approvals, the live view of a run."""
