"""Model calls of observe with checked answers, and whether the routed model can see images."""
