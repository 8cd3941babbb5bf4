"""Parts of reading a reply that wire forms share: tool calls, finish reasons, errors."""
