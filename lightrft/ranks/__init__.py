"""Processes that work together: who there is, and what they tell each other."""
