"""The argument surface: declared once, read from the command line and YAML, checked before anything is loaded."""

from lightrft.args.batching import optimizer_steps, prompts_per_step
from lightrft.args.parse import parse
from lightrft.args.rules import check
from lightrft.args.surface import Args

__all__ = ["Args", "check", "optimizer_steps", "parse", "prompts_per_step"]
