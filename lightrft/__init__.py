"""LightRFT: reinforcement fine-tuning of language models, from one argparse surface."""

from lightrft.torchvision_operators import declare_where_missing

__version__ = "0.1.0"
declare_where_missing()
