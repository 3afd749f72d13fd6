r"""A published checkpoint (TensorFlow 1, TF-Slim) becomes a network of tf_keras.

The structure is read from the checkpoint; flags that name it are checked against it.
With --to_adaptivity or --to_units the network that is written is another one that
starts from the checkpoint's weights: an ACT or SACT network with fresh halting scores
from a plain one, or a shallower one from the first units of each block (section 4.1).

    python -m tools.import_checkpoint --checkpoint model.ckpt-100 --output sact.keras
    python -m tools.import_checkpoint --checkpoint resnet101.ckpt --output start.keras \
        --to_adaptivity sact --tau 0.005
"""

import json

from sact_tf.checkpoints import authors, files
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli import command_line
from sact_tf.models.config import FAMILIES
from sact_tf.models.resnet import ResNet

_ADAPTIVITIES = ("none", "act", "sact")


def main() -> None:
    """Parses the flags, reads the checkpoint, writes the network."""
    parser = command_line.parser("import_checkpoint", __doc__)
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
    expected.add_argument(
        "--units", nargs="+", type=int, help="residual units of each block, or a depth"
    )
    expected.add_argument("--num_classes", type=int)
    other = parser.add_argument_group("another network that starts from its weights")
    other.add_argument("--to_adaptivity", choices=_ADAPTIVITIES)
    other.add_argument("--to_units", nargs="+", type=int)
    settings = parser.add_argument_group("settings that checkpoints do not hold")
    settings.add_argument(
        "--tau", type=float, default=0.005, help="weight of the ponder cost in the loss"
    )
    settings.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()

    files.refuse_existing(flags.output)
    structure = authors.structure(flags.checkpoint)
    for name in ("family", "adaptivity", "num_classes"):
        _check(flags.checkpoint, structure, name, getattr(flags, name))
    resolve = FAMILIES[structure["family"]].resolve_units
    if flags.units:
        _check(flags.checkpoint, structure, "units", resolve(_depth(flags.units)))
    options = {"tau": flags.tau, "epsilon": flags.epsilon}
    model = ResNet(**structure, **options)
    authors.load_authors_checkpoint(model, flags.checkpoint)
    fresh = []
    if flags.to_adaptivity or flags.to_units:
        structure["adaptivity"] = flags.to_adaptivity or model.adaptivity
        structure["units"] = resolve(_depth(flags.to_units or model.units))
        source, model = model, ResNet(**structure, **options)
        fresh = initialize_from(model, source)
    files.save(model, flags.output)
    if flags.json:
        result = {"output": flags.output, **structure, "fresh_variables": fresh}
        print(json.dumps(result, indent=1))
    else:
        described = ", ".join(f"{key} {value}" for key, value in structure.items())
        print(f"{flags.output}: {described}.")
        if fresh:
            print(f"Not from the checkpoint: {len(fresh)} variables of halting scores.")


def _depth(units):
    return units[0] if len(units) == 1 else units


def _check(prefix, structure, name, expected):
    if expected is not None and structure[name] != expected:
        raise ValueError(
            f"{prefix} holds a network of {name} {structure[name]}, not {expected}."
        )


if __name__ == "__main__":
    command_line.run(main)
