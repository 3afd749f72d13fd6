r"""A classifier from a folder of photographs, one folder per class.

Takes FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg; without val, a fifth of the
images is held out of training, and without train, the classes are the folders in FOLDER
itself. Trains a plain network first, then one that stops where features are good
enough (SACT) from its weights; or, with --initialize_from, at once from a network that
is trained already. A run that was stopped goes on when the same command is given again.

    sact-tf train-folder photos --output runs/photos
    sact-tf train-folder photos --output runs/photos --image_size 224 --epochs 60 \
        --base_channels 64
    sact-tf train-folder photos --output runs/photos --initialize_from resnet50.ckpt
"""

import argparse
import pathlib
import shlex

from sact_tf import folder_training
from sact_tf.cli import command_line, networks
from sact_tf.cli import flags as flag_library
from sact_tf.data import image_folder, preprocessing
from sact_tf.models.config import FAMILIES

#: What fits an evening on two cores rather than ImageNet.
_FRESH = {
    "imagenet": {"units": 50, "base_channels": 32, "image_size": 128},
    "cifar": {"units": 32, "base_channels": 16, "image_size": 32},
    "resnet_d": {"units": 50, "base_channels": 32, "image_size": 128},
    "resnet_d_small": {"units": 26, "base_channels": 32, "image_size": 64},
}
_RATES = {"fresh": 0.002, "trained": 0.001}
_MIN_AREA = 0.3
_TAU = 0.01
_EXAMPLES = 3  # images in the command that draws them


def add_flags(parser: flag_library.Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "folder", type=pathlib.Path, help="train/CLASS/*.jpg, val/CLASS/*.jpg"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="folder of the run"
    )
    data = parser.add_argument_group("images")
    data.add_argument(
        "--image_size",
        type=int,
        help="side in pixels that images are brought to (default: 128; 32 for cifar, "
        "64 for resnet_d_small; that of --initialize_from)",
    )
    data.add_argument(
        "--validation_share",
        type=float,
        default=0.2,
        help="of each class's images, held out where there is no folder val "
        "(default: 0.2)",
    )
    data.add_argument(
        "--min_area",
        type=float,
        help="least share of an image that a crop shows in training (default: "
        f"{_MIN_AREA}; ImageNet's recipe has 0.05; none for small images, which are "
        "shifted)",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--adaptivity",
        choices=("sact", "act", "none"),
        default="sact",
        help="whether to stop by position, by image, or never (default: sact)",
    )
    network.add_argument(
        "--initialize_from",
        metavar="NETWORK",
        help=f"a trained network to start from: {networks.KINDS}",
    )
    network.add_argument(
        "--family",
        choices=tuple(FAMILIES),
        help="kind of network (default: imagenet, for photographs)",
    )
    flag_library.add_units(network, "default: 50, that is 3 4 6 3; 32 for cifar")
    network.add_argument(
        "--base_channels", type=int, help="width (default: 32; 16 for cifar)"
    )
    network.add_argument(
        "--tau",
        type=float,
        default=_TAU,
        help="what a residual unit costs: more makes the network faster, and less "
        f"accurate (default: {_TAU})",
    )
    recipe = parser.add_argument_group("training")
    recipe.add_argument("--epochs", type=int, default=30, help="in all (default: 30)")
    recipe.add_argument(
        "--plain_epochs",
        type=int,
        help="how many of these as a plain network (default: half of them; 0 with "
        "--initialize_from)",
    )
    recipe.add_argument(
        "--batch_size", type=int, default=32, help="images in a step (default: 32)"
    )
    recipe.add_argument(
        "--learning_rate",
        type=float,
        help=f"Adam's, at the beginning (default: {_RATES['fresh']}; "
        f"{_RATES['trained']} with --initialize_from)",
    )
    recipe.add_argument(
        "--seed", type=int, default=0, help="of all that is random (default: 0)"
    )


def run(flags: argparse.Namespace) -> dict:
    """Trains; the result is what the network reaches, and where it is."""
    images = image_folder.open_folder(
        flags.folder, validation_share=flags.validation_share, seed=flags.seed
    )
    command_line.require_at_least(flags, epochs=1, batch_size=1, plain_epochs=0)
    print(_about(images))
    start, network, image_size = _structure(flags)
    rate = flags.learning_rate
    if rate is None:
        rate = _RATES["trained" if flags.initialize_from else "fresh"]
    recipe = folder_training.Recipe(
        image_size=image_size,
        epochs=flags.epochs,
        plain_epochs=_plain_epochs(flags),
        batch_size=flags.batch_size,
        learning_rate=rate,
        min_area=_min_area(flags, network["family"]),
        seed=flags.seed,
    )
    command_line.goes_on()
    result = folder_training.train(images, flags.output, network, recipe, start=start)
    examples = images.validation_images.paths[:_EXAMPLES]
    return {
        **result,
        "classes": list(images.classes),
        "adaptivity": flags.adaptivity,
        "image_size": image_size,
        "output": str(flags.output),
        "next": _next(flags, image_size, examples),
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result in a line, and what to do with it."""
    costs = f"{result['flops']:.3g} FLOPs an image"
    if result["adaptivity"] != "none":
        costs += (
            f", {100 * result['share_of_flops']:.0f} % of the plain network's "
            f"{result['plain_flops']:.3g}"
        )
    lines = [
        "",
        f"{result['output']}: accuracy {100 * result['accuracy']:.1f} % on "
        f"{result['num_images']} validation images; {costs}.",
        "",
    ]
    for what, command in result["next"].items():
        lines += [f"{what}:", f"  {command}"]
    return "\n".join(lines)


def _about(images):
    count = [
        len(part.paths) for part in (images.train_images, images.validation_images)
    ]
    where = "held out of them" if images.held_out else "in a folder of their own"
    return (
        f"{images.folder}: {len(images.classes)} classes, {count[0]} images for "
        f"training, {count[1]} for validation ({where})."
    )


def _structure(flags):
    """What to start from, arguments of the network, and the side of its images."""
    given = {
        name: getattr(flags, name) for name in ("family", "units", "base_channels")
    }
    given = {name: value for name, value in given.items() if value is not None}
    start = None
    if flags.initialize_from:
        found = networks.open_network(flags.initialize_from)
        start = folder_training.Start(found.network, found.classes)
        config = found.network.get_config()
        names = ("family", "units", "base_channels", "root_channels")
        usual = {name: config[name] for name in names}
        image_size = found.image_size
        if given.get("family", usual["family"]) != usual["family"]:
            raise ValueError(
                f"--family must be {usual['family']}, that of --initialize_from, or be "
                f"left out. Received: {given['family']}"
            )
    else:
        usual = {"family": given.get("family", "imagenet")}
        usual |= _FRESH[usual["family"]]
        image_size = usual.pop("image_size")
        width = given.get("base_channels", usual["base_channels"])
        usual["root_channels"] = width
    network = {**usual, **given, "adaptivity": flags.adaptivity, "tau": flags.tau}
    if flags.image_size is not None:
        image_size = flags.image_size
    stride = FAMILIES[network["family"]].stride
    if image_size < stride:
        raise ValueError(
            f"--image_size must be at least {stride}, the stride of "
            f"{network['family']} networks. Received: {image_size}"
        )
    return start, network, image_size


def _plain_epochs(flags):
    if flags.adaptivity == "none":
        if flags.plain_epochs is not None:
            raise ValueError("--plain_epochs is for ACT and SACT networks")
        return flags.epochs
    if flags.plain_epochs is not None:
        if flags.plain_epochs >= flags.epochs:
            raise ValueError(
                f"--plain_epochs must be less than --epochs, {flags.epochs}. "
                f"Received: {flags.plain_epochs}"
            )
        return flags.plain_epochs
    return 0 if flags.initialize_from else flags.epochs // 2


def _min_area(flags, family):
    if flags.min_area is None and family not in preprocessing.STANDARDIZED:
        return _MIN_AREA
    return flags.min_area


def _next(flags, image_size, examples):
    """Commands by what they do."""
    output = shlex.quote(str(flags.output))
    name = "".join(c if c.isalnum() else "_" for c in flags.output.resolve().name)
    commands = {}
    if flags.adaptivity != "none":
        # Whole images at the scale that the network has seen them at.
        side = round(image_size / preprocessing.CENTRAL_FRACTION)
        images = " ".join(shlex.quote(str(path)) for path in examples)
        commands["To see where it computes"] = (
            f"{command_line.called('ponder_maps')} --model {output} --output "
            f"{shlex.quote(str(flags.output / 'maps'))} --longer_side {side} {images}"
        )
    commands["To serve it"] = (
        f"{command_line.called('export_saved_model')} --model {output} --output "
        f"{shlex.quote(str(flags.output / 'served'))} --name {name}"
    )
    return commands


COMMAND = command_line.Command("train_folder", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
