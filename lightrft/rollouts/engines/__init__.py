"""Inference engines behind one protocol; each wraps one sampler."""
