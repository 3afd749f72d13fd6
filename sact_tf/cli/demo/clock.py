"""What sparse execution is for, by the clock: a network and images where it pays."""

import functools

import tensorflow as tf

import sact_tf
from sact_tf.cli.benchmark import forced, settings, timing

#: Root and blocks of the paper's detector, whose images have about this size.
_BLOCKS = 3
_LARGE = {
    "size": (600, 848),
    "units": settings.UNITS,
    "means": settings.DETECTION_POINTS["tau 0.005"],
    "base_channels": 64,
    "turns": 3,
}
_SMALL = {
    "size": (64, 64),
    "units": (1, 2, 2, 1),
    "means": (1.0, 1.5, 1.5),
    "base_channels": 4,
    "turns": 1,
}


def measure(quick: bool) -> dict:
    """Times ResNet-101, plain and SACT, as a detector's extractor.

    Weights are random, and each position uses as many units as in the paper's detector:
    what is measured are times, not what the network sees.

    Args:
      quick: on a small network and image, for trying the demo out.

    Returns:
      milliseconds of "plain", "dense" and "sparse"; flops_left, share of the plain
      network's; height and width of the image.
    """
    options = _SMALL if quick else _LARGE
    height, width = options["size"]
    images = tf.random.uniform([1, height, width, 3], -1.0, 1.0)
    maps = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16)]
    candidates, flops = {}, {}
    for name, adaptivity, execution in (
        ("plain", "none", "auto"),
        ("dense", "sact", "dense"),
        ("sparse", "sact", "auto"),
    ):
        network = sact_tf.ResNet(
            units=options["units"],
            adaptivity=adaptivity,
            execution=execution,
            base_channels=options["base_channels"],
        )
        if adaptivity == "sact":
            forced.force_halting(network, maps, options["means"], "blob")
        candidates[name] = functools.partial(_run, _traced(network), images)
        flops[name] = candidates[name]()
    seconds = timing.fastest(candidates, options["turns"], "by the clock")
    return {
        "milliseconds": {name: 1e3 * value for name, value in seconds.items()},
        "flops_left": flops["sparse"] / flops["plain"],
        "height": height,
        "width": width,
    }


def show(clock: dict) -> str:
    """What was measured, and what it says, whatever that is."""
    times = clock["milliseconds"]
    speed_up = times["plain"] / times["sparse"]
    if speed_up > 1:
        says = f"sparse SACT is {speed_up:.2f} times as fast as the plain network"
    else:
        says = (
            f"sparse SACT takes {1 / speed_up:.2f} times as long as the plain network: "
            "on this machine, or while it is busy, it does not pay"
        )
    return f"""By the clock, where sparse execution is meant to pay: the first \
{_BLOCKS} blocks of ResNet-101 on an
image of {clock["height"]} x {clock["width"]}, each position with as many units as in \
the paper's detector (random
weights: this is about time alone), {100 * clock["flops_left"]:.0f} % of the FLOPs left:
  plain                         {times["plain"]:7.0f} ms
  SACT, everything computed     {times["dense"]:7.0f} ms
  SACT, halted positions spared {times["sparse"]:7.0f} ms
{says[0].upper()}{says[1:]}."""


def _traced(network):
    @tf.function(autograph=False)
    def features(images):
        record = network.run(images, num_blocks=_BLOCKS)
        return record["blocks"][-1]["output"][0, 0, 0, 0], record["flops"][0]

    return features


def _run(function, images):
    """FLOPs of the image; fetching them and a feature waits for the computation."""
    feature, flops = function(images)
    feature.numpy()
    return int(flops)
