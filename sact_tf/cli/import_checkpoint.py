r"""A published checkpoint (TensorFlow 1, TF-Slim) becomes a network of tf_keras.

The structure is read from the checkpoint; flags that name it are checked against it.
With --to_adaptivity or --to_units the network that is written is another one that
starts from the checkpoint's weights: an ACT or SACT network with fresh halting scores
from a plain one, or a shallower one from the first units of each block (section 4.1).

    sact-tf import-checkpoint --checkpoint model.ckpt-100 --output sact.keras
    sact-tf import-checkpoint --checkpoint resnet101.ckpt --output start.keras \
        --to_adaptivity sact --tau 0.005
"""

import argparse

from sact_tf.checkpoints import authors, files
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser, add_units
from sact_tf.models.config import FAMILIES
from sact_tf.models.resnet import ResNet

_ADAPTIVITIES = ("none", "act", "sact")


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PREFIX",
        help="prefix of the checkpoint's files, without .index",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="what to write: a .keras file if it ends so, else a SavedModel folder",
    )
    expected = parser.add_argument_group("what the checkpoint must hold")
    expected.add_argument("--family", choices=tuple(FAMILIES))
    expected.add_argument("--adaptivity", choices=_ADAPTIVITIES)
    add_units(expected)
    expected.add_argument("--num_classes", type=int)
    other = parser.add_argument_group("another network that starts from its weights")
    other.add_argument("--to_adaptivity", choices=_ADAPTIVITIES)
    add_units(other, flag="--to_units")
    settings = parser.add_argument_group("settings that checkpoints do not hold")
    settings.add_argument(
        "--tau", type=float, default=0.005, help="weight of the ponder cost in the loss"
    )
    settings.add_argument("--epsilon", type=float, default=0.01)


def run(flags: argparse.Namespace) -> dict:
    """Reads the checkpoint, writes the network."""
    files.refuse_existing(flags.output)
    structure = authors.structure(flags.checkpoint)
    for name in ("family", "adaptivity", "num_classes"):
        _check(flags.checkpoint, structure, name, getattr(flags, name))
    resolve = FAMILIES[structure["family"]].resolve_units
    if flags.units:
        _check(flags.checkpoint, structure, "units", resolve(flags.units))
    options = {"tau": flags.tau, "epsilon": flags.epsilon}
    model = ResNet(**structure, **options)
    authors.load_authors_checkpoint(model, flags.checkpoint)
    fresh = []
    if flags.to_adaptivity or flags.to_units:
        structure["adaptivity"] = flags.to_adaptivity or model.adaptivity
        structure["units"] = resolve(flags.to_units or model.units)
        source, model = model, ResNet(**structure, **options)
        fresh = initialize_from(model, source)
    files.save(model, flags.output)
    return {"output": flags.output, **structure, "fresh_variables": fresh}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    others = ("output", "fresh_variables")
    structure = {key: value for key, value in result.items() if key not in others}
    described = ", ".join(f"{key} {value}" for key, value in structure.items())
    text, fresh = f"{flags.output}: {described}.", result["fresh_variables"]
    if fresh:
        text += f"\nNot from the checkpoint: {len(fresh)} variables of halting scores."
    return text


def _check(prefix, structure, name, expected):
    if expected is not None and structure[name] != expected:
        raise ValueError(
            f"{prefix} holds a network of {name} {structure[name]}, not {expected}."
        )


COMMAND = command_line.Command("import_checkpoint", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
