"""What the page can be told: its flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stableanimator_jax.config import Device, DtypeChoice
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Between, check_limits
from stableanimator_jax.shipped import EMBEDDED


@dataclass(frozen=True)
class AppConfig:
    """The page that `app.py` serves."""

    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Where it listens: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody who can reach it. It asks for no
    password, and anybody who reaches it can use the device."""
    port: Annotated[int, Between(1, 65535)] = 7860
    """Of its address."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="DIR|embedded")] = EMBEDDED
    """The weights, as in `stableanimator sample`: those in this package know drawn people only."""
    dwpose: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with DWPose's models, by which driving videos are understood. Without it, only poses can be given."""
    insightface_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with InsightFace's models, which find the person's face in the photo."""
    dtype: DtypeChoice = "auto"
    """What the models compute in, as in `stableanimator sample`."""
    device: Device = "auto"
    """Where to compute. auto: an accelerator where JAX finds one."""
    max_side: Annotated[int, Between(16, 16384)] = 1024
    """Longest side of a video in pixels that visitors may ask for."""
    max_frames: Annotated[int, Between(1, 100_000)] = 256
    """Most frames of a video. Of a longer driving video the first so many are taken; longer poses are refused."""
    max_upload_mb: Annotated[int, Between(1, 100_000)] = 200
    """Largest file that is taken, in MB."""
    queue: Annotated[int, Between(1, 10_000)] = 20
    """Most jobs that wait; who comes later is told to try again."""

    def __post_init__(self):
        check_limits(self)
        for name in ("dwpose", "insightface_root"):
            path = getattr(self, name)
            if path is not None and not path.is_dir():
                raise InputError(f"--{name.replace('_', '-')} {path} is not a directory")
