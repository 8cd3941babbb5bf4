"""Reply streams: pieces of an answer as they arrive, and the whole at the end."""
