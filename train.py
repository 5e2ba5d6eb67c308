"""Reinforcement fine-tuning of a language model: `torchrun train.py --pretrain MODEL ...`, or with plain python."""

from lightrft.cli import start

if __name__ == "__main__":
    start("text")
