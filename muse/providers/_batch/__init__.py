"""The providers' batch services."""
