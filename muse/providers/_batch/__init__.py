"""The batch services of the providers."""
