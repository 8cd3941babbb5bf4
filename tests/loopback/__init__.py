"""A loopback server that speaks the providers' wire forms; it does not know muse."""
