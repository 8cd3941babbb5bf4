"""The journal folder: its paths, journal.json, secrets, personas, prompts, and files that survive a crash."""
