"""Reading of replies, shared by the wire forms: tool calls, finish reasons, errors."""
