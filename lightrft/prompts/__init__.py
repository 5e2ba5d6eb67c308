"""Where the prompts come from: files or puzzles, their endless order, their tokens."""
