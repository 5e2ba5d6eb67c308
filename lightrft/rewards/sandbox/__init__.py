"""Who judges what a model wrote, and within which limits."""
