"""How an answer is read: which part of a response it is, and what a person would take it for."""
