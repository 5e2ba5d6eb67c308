"""What a response is worth: rules, users' functions, and their weighted sum. Imports no torch."""
