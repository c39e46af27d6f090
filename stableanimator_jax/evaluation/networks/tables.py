"""The rule tables of the metrics' networks: how their published PyTorch files name and lay out the weights."""

from stableanimator_jax.weights.rules import CONV2D, Ignore, Rule, Table, Transform
from stableanimator_jax.weights.tables import batch_norm, layer

CONV3D = Transform("CONV3D", "o i t h w", "t h w i o")
HEAD = Transform("HEAD", "1 c 1 1", "c")
"""A 1x1 convolution to one channel."""

_CLASSIFIER = "classifies; the features are taken before it"

I3D = Table(
    "I3D",
    (
        Rule("{unit:Conv3d_1a_7x7|Conv3d_2b_1x1|Conv3d_2c_3x3}.conv3d.weight", "{unit}.conv.kernel", CONV3D),
        *batch_norm("{unit:Conv3d_1a_7x7|Conv3d_2b_1x1|Conv3d_2c_3x3}.bn", "{unit}.bn"),
        Rule("{block}.{unit:b0|b1a|b1b|b2a|b2b|b3b}.conv3d.weight", "{block}.{unit}.conv.kernel", CONV3D),
        *batch_norm("{block}.{unit:b0|b1a|b1b|b2a|b2b|b3b}.bn", "{block}.{unit}.bn"),
        *layer("logits.conv3d", "logits", CONV3D, "kernel", True),
    ),
)

INCEPTION = Table(
    "FID's Inception",
    (
        Rule("{unit}.conv.weight", "{unit}.conv.kernel", CONV2D),
        *batch_norm("{unit}.bn"),
        Ignore("fc.{leaf:weight|bias}", _CLASSIFIER),
    ),
)

RESNET_3D = Table(
    "3D ResNet-50",
    (
        Rule("conv1.weight", "conv1.kernel", CONV3D),
        *batch_norm("bn1"),
        Rule("{block}.{layer:conv1|conv2|conv3}.weight", "{block}.{layer}.kernel", CONV3D),
        *batch_norm("{block}.{layer:bn1|bn2|bn3}", "{block}.{layer}"),
        Rule("{block}.downsample.0.weight", "{block}.downsample.conv.kernel", CONV3D),
        *batch_norm("{block}.downsample.1", "{block}.downsample.bn"),
        Ignore("fc.{leaf:weight|bias}", _CLASSIFIER),
    ),
)

# torchvision's Sequentials number ReLUs and pools too.
_CONVS = {"vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alex": (0, 3, 6, 8, 10)}

LPIPS = {
    backbone: Table(
        f"LPIPS ({backbone})",
        (
            *(
                rule
                for n, published in enumerate(numbers)
                for rule in layer(f"features.{published}", f"backbone.convs.{n}", CONV2D, "kernel", True)
            ),
            Ignore("classifier.{i}.{leaf:weight|bias}", _CLASSIFIER),
            *(Rule(f"lin{n}.model.1.weight", f"heads.{n}.weight", HEAD) for n in range(5)),
        ),
    )
    for backbone, numbers in _CONVS.items()
}
