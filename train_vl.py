"""Reinforcement fine-tuning of a vision-language model: the same surface as train.py, other defaults."""

import sys

from lightrft.cli import main

if __name__ == "__main__":
    sys.exit(main("vision"))
