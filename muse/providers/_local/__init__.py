"""The engine of the `local` provider: a model in a child process, fetched and controlled from here."""
