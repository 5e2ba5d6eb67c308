"""Python files of the user's own: executed once, with the files beside them."""
