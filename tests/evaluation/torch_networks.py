"""The metrics' networks once more, in plain torch under their published names, for tests to compare with."""

import torch
import torch.nn.functional as F
from torch import nn

from stableanimator_jax.evaluation.networks.lpips import Backbone

I3D_WIDTHS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def same(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """Zeros around the last three axes, as TensorFlow's "SAME": the odd one comes after."""
    pads: list[int] = []
    for length, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads)


def same_max(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


class I3DUnit(nn.Module):
    def __init__(self, width: int, to: int, side: int, stride: int = 1, eps: float = 1e-3, bn: bool = True):
        super().__init__()
        self.kernel, self.stride = (side,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(width, to, side, stride, bias=not bn)
        self.bn = nn.BatchNorm3d(to, eps=eps) if bn else None

    def forward(self, x):
        x = self.conv3d(same(x, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class I3DMixed(nn.Module):
    def __init__(self, width: int, widths: tuple[int, ...], eps: float):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = I3DUnit(width, b0, 1, eps=eps)
        self.b1a = I3DUnit(width, b1a, 1, eps=eps)
        self.b1b = I3DUnit(b1a, b1b, 3, eps=eps)
        self.b2a = I3DUnit(width, b2a, 1, eps=eps)
        self.b2b = I3DUnit(b2a, b2b, 3, eps=eps)
        self.b3b = I3DUnit(width, b3b, 1, eps=eps)

    def forward(self, x):
        pooled = same_max(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class I3D(nn.Module):
    def __init__(self, eps: float):
        super().__init__()
        self.Conv3d_1a_7x7 = I3DUnit(3, 64, 7, 2, eps=eps)
        self.Conv3d_2b_1x1 = I3DUnit(64, 64, 1, eps=eps)
        self.Conv3d_2c_3x3 = I3DUnit(64, 192, 3, eps=eps)
        width = 192
        for name, widths in I3D_WIDTHS.items():
            setattr(self, name, I3DMixed(width, widths, eps))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = I3DUnit(width, 400, 1, bn=False)

    def forward(self, x):
        x = same_max(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = same_max(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in I3D_WIDTHS:
            if name == "Mixed_4b":
                x = same_max(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = same_max(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, name)(x)
        return self.logits(F.avg_pool3d(x, (2, 7, 7), 1)).flatten(2).mean(2)


class BasicConv(nn.Module):
    def __init__(self, width: int, to: int, kernel, stride: int = 1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(width, to, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(to, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def average3(x):
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Block(nn.Module):
    """Named units, and the lists of them that are run one after another; each list makes a part of the output."""

    def __init__(self, units: dict[str, tuple], paths: list[list[str]], pool=None):
        super().__init__()
        for name, arguments in units.items():
            setattr(self, name, BasicConv(*arguments))
        self.paths, self.pool = paths, pool

    def forward(self, x):
        parts = []
        for path in self.paths:
            y = x
            for name in path:
                y = self.pool(y) if name == "pool" else getattr(self, name)(y)
            parts.append(y)
        return torch.cat(parts, 1)


def inception_a(width: int, pooled: int) -> Block:
    units = {
        "branch1x1": (width, 64, 1),
        "branch5x5_1": (width, 48, 1),
        "branch5x5_2": (48, 64, 5, 1, 2),
        "branch3x3dbl_1": (width, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 1, 1),
        "branch_pool": (width, pooled, 1),
    }
    double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
    return Block(units, [["branch1x1"], ["branch5x5_1", "branch5x5_2"], double, ["pool", "branch_pool"]], average3)


def inception_b() -> Block:
    units = {
        "branch3x3": (288, 384, 3, 2),
        "branch3x3dbl_1": (288, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }
    double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
    return Block(units, [["branch3x3"], double, ["pool"]], nn.MaxPool2d(3, 2))


def inception_c(inner: int) -> Block:
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    units = {
        "branch1x1": (768, 192, 1),
        "branch7x7_1": (768, inner, 1),
        "branch7x7_2": (inner, inner, *row),
        "branch7x7_3": (inner, 192, *column),
        "branch7x7dbl_1": (768, inner, 1),
        "branch7x7dbl_2": (inner, inner, *column),
        "branch7x7dbl_3": (inner, inner, *row),
        "branch7x7dbl_4": (inner, inner, *column),
        "branch7x7dbl_5": (inner, 192, *row),
        "branch_pool": (768, 192, 1),
    }
    single = [f"branch7x7_{n}" for n in (1, 2, 3)]
    double = [f"branch7x7dbl_{n}" for n in (1, 2, 3, 4, 5)]
    return Block(units, [["branch1x1"], single, double, ["pool", "branch_pool"]], average3)


def inception_d() -> Block:
    units = {
        "branch3x3_1": (768, 192, 1),
        "branch3x3_2": (192, 320, 3, 2),
        "branch7x7x3_1": (768, 192, 1),
        "branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)),
        "branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
        "branch7x7x3_4": (192, 192, 3, 2),
    }
    deep = [f"branch7x7x3_{n}" for n in (1, 2, 3, 4)]
    return Block(units, [["branch3x3_1", "branch3x3_2"], deep, ["pool"]], nn.MaxPool2d(3, 2))


def inception_e(width: int, pool) -> Block:
    row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    units = {
        "branch1x1": (width, 320, 1),
        "branch3x3_1": (width, 384, 1),
        "branch3x3_2a": (384, 384, *row),
        "branch3x3_2b": (384, 384, *column),
        "branch3x3dbl_1": (width, 448, 1),
        "branch3x3dbl_2": (448, 384, 3, 1, 1),
        "branch3x3dbl_3a": (384, 384, *row),
        "branch3x3dbl_3b": (384, 384, *column),
        "branch_pool": (width, 192, 1),
    }
    double = ["branch3x3dbl_1", "branch3x3dbl_2"]
    paths = [["branch1x1"], ["branch3x3_1", "branch3x3_2a"], ["branch3x3_1", "branch3x3_2b"]]
    paths += [[*double, "branch3x3dbl_3a"], [*double, "branch3x3dbl_3b"], ["pool", "branch_pool"]]
    return Block(units, paths, pool)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = BasicConv(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1 = BasicConv(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv(80, 192, 3)
        self.Mixed_5b = inception_a(192, 32)
        self.Mixed_5c = inception_a(256, 64)
        self.Mixed_5d = inception_a(288, 64)
        self.Mixed_6a = inception_b()
        self.Mixed_6b = inception_c(128)
        self.Mixed_6c = inception_c(160)
        self.Mixed_6d = inception_c(160)
        self.Mixed_6e = inception_c(192)
        self.Mixed_7a = inception_d()
        self.Mixed_7b = inception_e(1280, average3)
        self.Mixed_7c = inception_e(2048, nn.MaxPool2d(3, 1, 1))
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        for name, layer in self.named_children():
            x = F.max_pool2d(x, 3, 2) if name in ("Conv2d_3b_1x1", "Mixed_5b") else x
            x = x.mean((2, 3)) if name == "fc" else layer(x)
        return x


class Bottleneck3D(nn.Module):
    def __init__(self, width: int, inner: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv3d(width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * inner)
        if width != 4 * inner:
            convolution = nn.Conv3d(width, 4 * inner, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm3d(4 * inner))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet3D(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        width = 64
        for n, (inner, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            first = Bottleneck3D(width, inner, 1 if n == 1 else 2)
            width = 4 * inner
            setattr(
                self, f"layer{n}", nn.Sequential(first, *(Bottleneck3D(width, inner, 1) for _ in range(blocks - 1)))
            )
        self.fc = nn.Linear(width, 400)

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.avg_pool3d(x, (1, 4, 4), 1).flatten(1)


def backbone(name: Backbone) -> nn.Module:
    """torchvision's VGG-16 or AlexNet, of the classifier only a part."""
    layers: list[nn.Module] = []
    if name == "vgg":
        width = 3
        for to in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(width, to, 3, padding=1), nn.ReLU()] if to else [nn.MaxPool2d(2, 2)]
            width = to or width
    else:
        layers = [
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
        ]
        layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
    net = nn.Module()
    net.features = nn.Sequential(*layers)
    net.classifier = nn.Sequential(nn.Linear(4, 5))
    return net


WIDTHS: dict[Backbone, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
TAPS: dict[Backbone, tuple[int, ...]] = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}


def lpips(name: Backbone, net: nn.Module, heads: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor):
    """LPIPS of images [n, 3, h, w] in [-1, 1]."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    total = torch.zeros(len(a))
    x, y = (a - shift) / scale, (b - shift) / scale
    for n, layer in enumerate(net.features):
        x, y = layer(x), layer(y)
        if n in TAPS[name]:
            u, v = (z / (z.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
            weight = heads[f"lin{TAPS[name].index(n)}.model.1.weight"]
            total = total + F.conv2d((u - v) ** 2, weight).mean((1, 2, 3))
    return total


def random_heads(name: Backbone) -> dict[str, torch.Tensor]:
    return {f"lin{n}.model.1.weight": torch.rand(1, width, 1, 1) for n, width in enumerate(WIDTHS[name])}


def randomise(net: nn.Module) -> nn.Module:
    """Weights that keep numbers in range, and batch norms that differ from channel to channel, with small variances."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.2, 2)
    return net.eval()
