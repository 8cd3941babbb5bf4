"""The settings app: who serves what, seen and changed in a browser; it knows no other app."""
