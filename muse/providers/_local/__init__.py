"""The engine beneath the `local` provider: a model in a child process; knows no prompt or route."""
