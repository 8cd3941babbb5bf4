"""Chat: conversations with the journal's assistant, each kept as a file; every turn is an agent run."""
