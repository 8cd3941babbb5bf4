"""Text for terminals: escaping of control characters, and consoles that apply it."""
