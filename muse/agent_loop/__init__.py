"""The agent loop: model calls and tool calls in turns, with MCP servers, approvals and limits."""
