"""The web apps and the host they share; nothing below imports from here."""
