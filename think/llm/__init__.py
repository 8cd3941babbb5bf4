"""Model calls of think: each made once, and prompts that a small model can answer."""
