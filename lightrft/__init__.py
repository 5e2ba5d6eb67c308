"""LightRFT: reinforcement fine-tuning of language models, from one argparse surface."""

__version__ = "0.1.0"
