"""What papers print of networks, to be put beside what is measured here."""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of a published table: ImageNet's validation images, at 224 px.

    Attributes:
      name: of the network.
      accuracy: a share.
      flops: per image, as sact_tf counts them: two for each multiply-add.
    """

    name: str
    accuracy: float
    flops: float


_DEPTHS = (50, 101, 152)
#: Billions of multiply-adds by depth, then top-1 in % without and with RandAugment.
_SSBNET = {
    "uniform (12, 6, 3)": (
        (2.61, 3.35, 4.13),
        (77.70, 78.29, 78.56),
        (77.97, 78.91, 79.31),
    ),
    "adaptive (12, 6, 3)": (
        (2.61, 3.35, 4.14),
        (77.75, 78.46, 78.64),
        (77.96, 79.13, 79.65),
    ),
    "uniform (16, 8, 4)": (
        (2.95, 4.25, 5.60),
        (77.96, 78.68, 79.05),
        (78.07, 79.27, 79.71),
    ),
    "adaptive (16, 8, 4)": (
        (2.95, 4.25, 5.61),
        (78.09, 78.88, 79.19),
        (78.22, 79.50, 80.12),
    ),
    "uniform (20, 10, 5)": (
        (3.38, 5.40, 7.49),
        (78.01, 79.01, 79.42),
        (78.37, 79.41, 80.19),
    ),
    "adaptive (20, 10, 5)": (
        (3.38, 5.40, 7.49),
        (78.12, 78.99, 79.45),
        (78.36, 79.88, 80.28),
    ),
    "bilinear (16, 8, 4)": (
        (2.95, 4.25, 5.61),
        (77.62, 78.41, 78.86),
        (77.77, 79.02, 79.58),
    ),
    "depthwise (14, 7, 4)": (
        (2.74, 3.69, 4.65),
        (77.95, 78.42, 78.81),
        (78.06, 79.15, 79.58),
    ),
}


def _ssbnet(augmented):
    return [
        Published(
            f"SSB-ResNet-D-{depth}, {sampler}",
            round(values[1 + augmented][index] / 100, 4),
            2e9 * values[0][index],
        )
        for sampler, values in _SSBNET.items()
        for index, depth in enumerate(_DEPTHS)
    ]


#: By name: tables 2 and 3 of SSBNet's supplement (means of three runs); which of its
#: blocks is which sampling size is inferred from their FLOPs.
TABLES: dict[str, list[Published]] = {
    "ssbnet": _ssbnet(0),
    "ssbnet_randaugment": _ssbnet(1),
}
