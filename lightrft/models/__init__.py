"""Models: loading, and per-token log-probabilities from any Hugging Face causal language model."""
