"""Questions whose answers have a form, and whether who is routed to can answer them; it knows no feature."""
