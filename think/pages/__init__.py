"""What all pages of insights have in common: who may overwrite them, what is kept beside them, how they look."""
