"""The mathematics: pure functions on tensors, one estimator per file. See docs/architecture.md."""
