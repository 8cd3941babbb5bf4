"""Who may ask the pages for what: hosts and origins, sign-in, limits on connections."""
