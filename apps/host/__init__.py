"""The small host of the web apps: it finds them by folder, guards them, and gives them one look."""
