"""Reinforcement fine-tuning of a language model: `torchrun train.py --pretrain MODEL ...`, or with plain python."""

import sys

from lightrft.cli import main

if __name__ == "__main__":
    sys.exit(main("text"))
