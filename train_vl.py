"""Reinforcement fine-tuning of a vision-language model: the same surface as train.py, other defaults."""

from lightrft.cli import start

if __name__ == "__main__":
    start("vision")
