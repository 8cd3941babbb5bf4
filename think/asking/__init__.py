"""Questions to models, each asked once, and what a small one can answer: the choice of a sentence, its title."""
