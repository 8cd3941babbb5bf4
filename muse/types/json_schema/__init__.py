"""JSON Schema: validation, strict forms for providers, and schemas of tools."""
