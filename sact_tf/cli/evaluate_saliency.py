"""Ponder cost maps as a model of where people look: table 2 and figure 11 of the paper.

Takes networks from .keras files, tunes the blur and the centre bias of their ponder
cost maps on the first half of every category of a data set in cat2000's layout, and
scores them on the second half. The same command goes on where it was stopped.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import visualization
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import cat2000, preprocessing
from sact_tf.evaluation import saliency
from sact_tf.evaluation.saliency_experiment import Experiment, Row, markdown_table

SIGMAS = (0, 2, 5, 10, 15, 20, 30, 40, 60)
GAMMAS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to evaluate: a file, and perhaps other weights than the file's."""

    name: str
    path: pathlib.Path
    size: tuple[int, int]
    random_weights: int | None = None

    def load(self):
        """The network.

        Raises:
          ValueError: the file holds none that offers maps.
        """
        try:
            model = sact_tf.load_model(self.path, compile=False)
        # Keras raises whatever a broken file runs into.
        except Exception as error:
            raise ValueError(f"Cannot load a network from {self.path}: {error}") from (
                error
            )
        if not hasattr(model, "introspect"):
            raise ValueError(
                f"{self.path} holds a {type(model).__name__}, which has no ponder cost "
                "maps: it must offer introspect()"
            )
        if self.random_weights is not None:
            tf_keras.utils.set_random_seed(self.random_weights)
            model = type(model).from_config(model.get_config())
        standardized = getattr(model, "family", None) in preprocessing.STANDARDIZED
        return _Standardizing(model) if standardized else model

    def settings(self) -> dict:
        """What results depend on, for the experiment."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"model": digest, "random_weights": self.random_weights}


class _Standardizing:
    """A network that takes standardized images, for images in [-1, 1]."""

    def __init__(self, model):
        self._model = model

    def introspect(self, images):
        """As the network's. Standardized, an image's range makes no difference."""
        return self._model.introspect(tf.image.per_image_standardization(images))


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--data_dir",
        type=pathlib.Path,
        required=True,
        help="folder that holds trainSet/Stimuli and trainSet/FIXATIONLOCS",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        metavar="[NAME=]FILE",
        help=".keras files of classification or detection networks",
    )
    parser.add_argument(
        "--box",
        nargs="+",
        default=["320x180"],
        metavar="WxH",
        help="box that images are scaled to, aspect ratio kept: one for all networks, "
        "or one each; the paper has 320x180 for classification (the default) and "
        "640x360 for detection",
    )
    parser.add_argument(
        "--random_weights",
        type=int,
        metavar="SEED",
        help="also evaluate every network with random weights in place of its own",
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=SIGMAS,
        help="blurs to try, in pixels of the scaled image (default: %(default)s)",
    )
    parser.add_argument(
        "--gammas",
        type=float,
        nargs="+",
        default=GAMMAS,
        help="weights of the centre map to try (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default="saliency_output",
        help="output folder (default: %(default)s)",
    )
    parser.add_argument(
        "--examples", type=int, default=6, help="rows of figure 11 (default: 6)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images at a time (default: 8)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="for files and metrics (default: one for each processor)",
    )
    parser.renamed(data="data_dir", size="box", workers="threads")


def run(flags: argparse.Namespace) -> dict:
    """Evaluates all networks; writes tables and pictures into the output folder."""
    command_line.require_at_least(flags, examples=1, batch_size=1, threads=1)
    networks = _networks(flags.model, flags.box, flags.random_weights)
    examples = cat2000.find(flags.data_dir)
    experiment = Experiment(
        examples,
        flags.output,
        sigmas=flags.sigmas,
        gammas=flags.gammas,
        batch_size=flags.batch_size,
        workers=flags.threads,
    )
    notes = []
    command_line.goes_on()
    with experiment:
        rows = experiment.baselines()
        if len(rows) == 1:
            notes.append(
                "No row of one human: that takes the fixations of single observers "
                "(trainSet/OBSERVERS)."
            )
        for network in networks:
            model = network.load()
            result = experiment.network(
                network.name, model, network.size, network.settings()
            )
            rows += result.rows
            if result.at_edge:
                notes.append(
                    f"{network.name}: the best s or gamma is the largest that was "
                    "tried; try larger ones."
                )
            _draw(experiment, network, model, result, flags.examples)
    content = {
        "rows": [row.as_dict() for row in rows],
        "notes": notes,
        "table": markdown_table(rows),
    }
    for name, text in (
        ("table.md", content["table"]),
        ("results.json", json.dumps(content, indent=1)),
    ):
        (flags.output / name).write_text(text + "\n", encoding="utf-8")
    return content


def _draw(experiment, network, model, result, count):
    folder = experiment.folder(network.name)
    figure = visualization.grid_search_surface(
        result.sigmas,
        result.gammas,
        result.surface,
        f"{network.name}, tuning half",
    )
    visualization.save(figure, folder / "grid_search.png")
    best: Row = result.rows[0]
    shown = experiment.shown(model, network.size, count)
    figure = visualization.saliency_maps(
        [item.image for item in shown],
        [item.fixations for item in shown],
        [saliency.heat_map(item.fixations) for item in shown],
        [item.ponder_cost_map for item in shown],
        [
            saliency.postprocess(item.ponder_cost_map, best.sigma, best.gamma)
            for item in shown
        ],
        [item.example.name for item in shown],
    )
    visualization.save(figure, folder / "examples.png")


def _networks(models, sizes, random_weights):
    if len(sizes) not in (1, len(models)):
        raise ValueError(
            f"Give one --box for all networks, or one each. Received: {len(sizes)} "
            f"sizes for {len(models)} networks"
        )
    if len(sizes) == 1:
        sizes = sizes * len(models)
    networks = []
    for text, size in zip(models, map(parse_size, sizes), strict=True):
        name, _, path = text.rpartition("=")
        path = pathlib.Path(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}. Give a .keras file")
        name = name or path.stem
        if not re.fullmatch(r"[\w.-]+", name) or name == "baselines":
            raise ValueError(
                "The name of a network may have letters, digits, '.', '_' and '-', and "
                f"not be 'baselines'. Received: {name!r}; use --model NAME=FILE"
            )
        networks.append(Network(name, path, size))
        if random_weights is not None:
            networks.append(
                Network(f"{name}-random-weights", path, size, random_weights)
            )
    names = [network.name for network in networks]
    if len(set(names)) < len(names):
        raise ValueError(
            "Networks must have different names, use --model NAME=FILE. Received: "
            + ", ".join(names)
        )
    return networks


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "320x180"."""
    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    if not sides or not all(map(int, sides.groups())):
        raise ValueError(f"A size must be WIDTHxHEIGHT, as 320x180. Received: {text}")
    return int(sides[1]), int(sides[2])


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    lines = [result["table"], "", *result["notes"]]
    lines.append(
        f"Means over the second half of every category; ± is the standard error. In "
        f"{flags.output}/: table.md, results.json, and for every network "
        "grid_search.png and examples.png."
    )
    return "\n".join(lines)


COMMAND = command_line.Command("evaluate_saliency", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
