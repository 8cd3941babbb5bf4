"""Tool calls for the embedded model, which is too small to plan them itself."""
