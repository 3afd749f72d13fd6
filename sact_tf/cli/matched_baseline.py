r"""The plain network to compare an ACT or SACT network with (section 4.1).

Its units are the adaptive network's average units per block, rounded; it starts from
the first units of each block of a trained network, and is then trained like the others.
The averages come from an evaluation that is there already (--results), or are measured
on a data set.

    sact-tf matched-baseline --model sact.keras --source resnet101.keras \
        --results evaluation/results.json --output baseline.keras
    sact-tf matched-baseline --model sact.keras --dataset cifar10 \
        --data_dir tfds --output baseline.keras
"""

import argparse
import pathlib

import tensorflow as tf

from sact_tf import text_files
from sact_tf.checkpoints import files
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli import command_line, evaluate, networks
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import baselines, report
from sact_tf.models.resnet import ResNet


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--model", required=True, help=f"the ACT or SACT network: {networks.KINDS}"
    )
    parser.add_argument(
        "--initialize_from",
        help="the trained network to start from; the paper takes the full plain one "
        "(default: the ACT or SACT network itself)",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="what to write: a .keras file if it ends so, else a SavedModel folder",
    )
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="results.json that sact-tf evaluate wrote for the network, instead of "
        "measuring",
    )
    parser.add_argument(
        "--rounding",
        choices=("nearest", "flops"),
        default="nearest",
        help="to the nearest integers, as in the paper; or up or down in each block so "
        "that the FLOPs agree best",
    )
    evaluate.add_data_flags(parser)
    parser.add_argument(
        "--image_size", type=int, help="side of the images (default: see evaluate)"
    )
    parser.renamed(source="initialize_from")


def run(flags: argparse.Namespace) -> dict:
    """Finds the averages, writes the network."""
    files.refuse_existing(flags.output)
    found = networks.open_network(flags.model)
    model = found.network
    if model.adaptivity == "none":
        raise ValueError(f"{flags.model} is a plain network itself.")
    source = networks.load(flags.initialize_from) if flags.initialize_from else model
    row, size = _read(model, flags) if flags.results else _measure(found, flags)
    config = {
        **source.get_config(),
        "adaptivity": "none",
        "units": source.units,
        "tile_size": 1,
        "name": None,
    }
    if flags.rounding == "nearest":
        units = baselines.nearest_integers(row.units)
    else:
        images = tf.zeros([1, size, size, 3])
        units = baselines.nearest_flops(ResNet(**config), images, row)
    baseline = ResNet(**{**config, "units": units})
    initialize_from(baseline, source)
    files.save(baseline, flags.output)
    flops = int(baseline.introspect(tf.zeros([1, size, size, 3]))["flops"][0])
    return {
        "output": flags.output,
        "average_units": row.units,
        "units": units,
        "image_size": size,
        "adaptive_flops": row.flops,
        "flops": flops,
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    average = ", ".join(f"{mean:.2f}" for mean in result["average_units"])
    return (
        f"{flags.output}: units {', '.join(map(str, result['units']))} for an average "
        f"of {average}; {result['flops']:.4g} FLOPs at {result['image_size']} px, the "
        f"adaptive network has {result['adaptive_flops']:.4g}."
    )


def _measure(found, flags):
    """The network's row on the data set, and the size of the images."""
    data, model = evaluate.open_data(flags), found.network
    size = flags.image_size or evaluate.default_image_size(flags.dataset, found)
    # What images cost does not depend on their classes.
    batches = data.batches(model.family, size, flags.batch_size)
    row = evaluate.count(
        model,
        ((images, None) for images, _ in batches),
        report.Evaluation(len(model.blocks)),
        total=data.num_images,
        name=pathlib.Path(flags.model).stem,
    )
    return row, size


def _read(model, flags):
    """The same from a file of results."""
    try:
        entries = text_files.json(flags.results)["rows"]
        entries = [
            entry
            for entry in entries
            if len(entry["units"]) == len(model.blocks)
            and entry["fingerprint"] == files.fingerprint(model)
            and flags.image_size in (None, entry["image_size"])
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{flags.results} is no results.json of sact-tf evaluate. ({error!r})"
        ) from error
    if len(entries) != 1:
        raise ValueError(
            f"{flags.results} has {len(entries)} rows of {flags.model} at "
            f"{flags.image_size or 'any'} px; exactly one is needed (--image_size)"
        )
    (entry,) = entries
    fields = {field: entry[field] for field in report.Row.__dataclass_fields__}
    fields["units"] = tuple(fields["units"])
    return report.Row(**fields), entry["image_size"]


COMMAND = command_line.Command("matched_baseline", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
