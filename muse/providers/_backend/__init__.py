"""Between the public functions and a wire form: keys, clients, attempts, logging, loading of provider code."""
