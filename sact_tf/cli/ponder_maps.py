r"""Where a network computes: ponder cost maps of photographs.

For every image a picture (the image, the map of all blocks together, the map of each
block) and an .npz of the raw maps; for all of them an overview: images of the lowest,
an average and the highest ponder cost.

    sact-tf ponder-maps --model sact.keras --output maps \
        photographs/ 'more/*.jpg'
"""

import argparse
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from sact_tf import folders, visualization
from sact_tf.checkpoints import files
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser
from sact_tf.data import image_files, preprocessing
from sact_tf.models.config import FAMILIES
from sact_tf.models.options import check_halting_bias

_COLUMNS = 4  # of the overview


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "images", nargs="+", help="image files, folders (searched), or glob patterns"
    )
    parser.add_argument(
        "--model", required=True, help=f"an ACT or SACT network: {networks.KINDS}"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder")
    parser.add_argument(
        "--longer_side",
        type=int,
        default=320,
        help="pixels of the longer side of every image (default: 320); 0 takes the "
        "images as they are",
    )
    parser.add_argument(
        "--scale",
        choices=("common", "own"),
        default="common",
        help="colours mean the same in all pictures, or each has its own scale",
    )
    parser.add_argument(
        "--halting_bias", type=float, help="added to every halting logit"
    )


def run(flags: argparse.Namespace) -> dict:
    """Computes the maps, draws them."""
    command_line.require_at_least(flags, longer_side=0)
    names = image_files.find_named(flags.images)
    outputs = image_files.output_names(names, taken=["overview"])
    model = networks.load(flags.model)
    if model.adaptivity == "none":
        raise ValueError(
            f"{flags.model} is a plain network: it spends the same everywhere. Give an "
            "ACT or SACT network"
        )
    check_halting_bias(flags.halting_bias or 0.0, model.adaptivity)
    settings = {
        "network": files.fingerprint(model),
        "images": {outputs[path]: str(path.resolve()) for path in names},
        "longer_side": flags.longer_side,
        "halting_bias": flags.halting_bias,
    }
    folders.claim(flags.output, "settings.json", settings, "ponder cost maps")
    command_line.goes_on()
    targets = {path: flags.output / name for path, name in outputs.items()}
    done, costs, failed = _compute(model, targets, flags)
    if done:
        _draw(done, flags)
        _draw_overview(done, costs, flags)
    folders.write_json(flags.output / "costs.json", costs)
    return command_line.partly({"images": costs, "failed": failed}, len(names))


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return f"{flags.output}/: pictures of {len(result['images'])} images, overview.png."


def _compute(model, targets, flags):
    """Writes the .npz that are not there yet; reports images that cannot be used."""
    done, costs, failed = {}, [], []
    for path, target in tqdm(targets.items(), desc="computing", unit="image"):
        maps = target.with_name(f"{target.name}.npz")
        if not maps.exists():
            try:
                image = _read(path, flags.longer_side, FAMILIES[model.family].stride)
            except (ValueError, OSError) as error:
                tqdm.write(f"skipped: {error}", sys.stderr)
                failed.append(str(path))
                continue
            images = preprocessing.normalize(image[np.newaxis], model.family)
            _write(maps, model.introspect(images, flags.halting_bias))
        done[path] = target
        with np.load(maps) as stored:
            costs.append(
                {
                    "image": str(path),
                    "maps": maps.name,
                    "ponder_cost": float(stored["ponder_cost"]),
                    "flops": int(stored["flops"]),
                }
            )
    return done, costs, failed


def _read(path, longer_side, stride):
    image = image_files.read(path, longer_side or None)
    if min(image.shape[:2]) < stride:
        advice = " Try a larger --longer_side." if min(image.shape[:2]) > 1 else ""
        raise ValueError(
            f"{path} has {image.shape[1]} x {image.shape[0]} pixels as it is used; the "
            f"network needs {stride} in both directions.{advice}"
        )
    return image


def _write(path, record):
    arrays = {
        "ponder_cost_map": record["ponder_cost_map"][0, ..., 0],
        "num_units_map": record["num_units_map"][0, ..., 0],
        "ponder_cost": record["ponder_cost"][0],
        "flops": record["flops"][0],
    }
    for block in record["blocks"]:
        for key in ("ponder_cost", "num_units"):
            arrays[f"{block['name']}_{key}"] = block[key][0]
    temporary = path.with_name(f".{path.name}")
    np.savez_compressed(temporary, **{k: np.asarray(v) for k, v in arrays.items()})
    temporary.replace(path)


def _record(target):
    """What `visualization` needs of a record, with a batch of one image."""
    with np.load(target.with_name(f"{target.name}.npz")) as stored:
        arrays = dict(stored)
    suffix = "_ponder_cost"
    names = sorted(
        key.removesuffix(suffix)
        for key in arrays
        if key.startswith("block") and key.endswith(suffix)
    )
    return {
        "ponder_cost": arrays["ponder_cost"],
        "flops": arrays["flops"],
        "ponder_cost_map": arrays["ponder_cost_map"][np.newaxis, ..., np.newaxis],
        "blocks": [
            {"name": name, "ponder_cost": arrays[f"{name}{suffix}"][np.newaxis]}
            for name in names
        ],
    }


def _shown(path, flags):
    image = image_files.read(path, flags.longer_side or None)
    return image / np.float32(127.5) - 1.0


def _draw(done, flags):
    scales = None
    if flags.scale == "common":
        ranges = [visualization.ponder_cost_ranges(_record(t)) for t in done.values()]
        scales = [
            (min(low for low, _ in pairs), max(high for _, high in pairs))
            for pairs in zip(*ranges, strict=True)
        ]
    for path, target in tqdm(done.items(), desc="drawing", unit="image"):
        record = _record(target)
        title = f"{path.name}\nponder cost {record['ponder_cost']:.2f}"
        figure = visualization.ponder_cost_maps(
            _shown(path, flags)[np.newaxis], record, [title], scales
        )
        visualization.save(figure, target.with_name(f"{target.name}.png"))


def _draw_overview(done, costs, flags):
    """Lowest, middle and highest ponder costs, a row each; or all, if they are few."""
    ordered = sorted(costs, key=lambda cost: cost["ponder_cost"])
    if len(ordered) > 3 * _COLUMNS:
        middle = (len(ordered) - _COLUMNS) // 2
        chosen = slice(middle, middle + _COLUMNS)
        ordered = ordered[:_COLUMNS] + ordered[chosen] + ordered[-_COLUMNS:]
    paths = [pathlib.Path(cost["image"]) for cost in ordered]
    maps = [_record(done[path])["ponder_cost_map"][0, ..., 0] for path in paths]
    scale = None
    if flags.scale == "common":
        scale = min(m.min() for m in maps), max(m.max() for m in maps)
    figure = visualization.ponder_cost_overview(
        [_shown(path, flags) for path in paths],
        maps,
        [f"{cost['ponder_cost']:.2f}" for cost in ordered],
        scale,
        _COLUMNS,
    )
    visualization.save(figure, flags.output / "overview.png")


COMMAND = command_line.Command(
    "ponder_maps", __doc__, add_flags, run, show, "print the costs as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
