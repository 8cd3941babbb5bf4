"""The layer between the public functions and the wire forms: keys, clients, attempts, logging and loading."""
