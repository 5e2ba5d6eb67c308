import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "lightrft/__init__.py").read_text(), re.MULTILINE)
assert VERSION, "lightrft/__init__.py has no __version__"
README = ROOT / "README.md"

EXAMPLES = ["gguf>=0.17", "reasoning-gym>=0.1.25"]
QLORA = ["bitsandbytes>=0.50"]
VIDEO = ["av>=14"]  # torchcodec is taken in its place where it is installed
VISION = ["pillow>=10.1", "torchvision>=0.21"]
VOLUMES = ["nibabel>=5.2"]
WANDB = ["psutil>=5", "wandb>=0.27"]
TEST = ["hypothesis>=6.100", "pandas>=2", "pyright[nodejs]>=1.1.400", "pytest>=8", "pytest-xdist>=3.6", "ruff>=0.12"]

setup(
    name="lightrft",
    version=VERSION[1],
    description="Reinforcement fine-tuning of language and vision-language models, from one argparse surface",
    long_description=README.read_text() if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_namespace_packages(include=["lightrft", "lightrft.*"], exclude=["*.__pycache__", "*.__pycache__.*"]),
    package_data={"": ["*.yaml", "*.csv", "*.jinja", "py.typed"]},
    install_requires=[
        "torch>=2.6",
        "transformers>=5.5,<6",  # tests ran on 5.5, 5.17 and 5.24
        "accelerate>=1.10",
        "peft>=0.19",  # tests ran on 0.19 and 0.21
        "deepspeed==0.19.8",
        "safetensors>=0.5",
        "numpy>=1.26",
        "pyyaml>=6",
        "datasets>=4",
        "math-verify[antlr4_13_2]>=0.9,<0.10",
        "matplotlib>=3.8",
        "tensorboard>=2.16",
    ],
    extras_require={
        "vllm": ["vllm>=0.26,<0.33"],  # for GPUs; without one: tests/engines/environment.sh
        "sglang": ["sglang==0.5.23"],
        "examples": EXAMPLES,
        "qlora": QLORA,
        "wandb": WANDB,
        "vision": VISION,
        "video": [*VISION, *VIDEO],
        "volumes": [*VISION, *VOLUMES],
        "test": [*EXAMPLES, *QLORA, *TEST, *VIDEO, *VISION, *VOLUMES, *WANDB],
        "dev": [*EXAMPLES, *QLORA, *TEST, *VIDEO, *VISION, *VOLUMES, *WANDB, "pre-commit>=4"],
    },
)
