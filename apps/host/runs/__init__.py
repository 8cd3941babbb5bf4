"""Pages of agent runs: rendered, streamed, controlled."""
