"""Values that all layers share: messages, usage, events, provider specs, JSON schemas. Nothing here does I/O."""
