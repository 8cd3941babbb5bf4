"""A bad day: two providers that fail in every way there is, callers that are killed, and what must hold then."""
