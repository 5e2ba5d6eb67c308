"""Arguments to parts, and parts to a trainer: the only folder that names concrete classes."""
