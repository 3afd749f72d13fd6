r"""Asks a server of TensorFlow Serving what is on images, and what finding out cost.

With --output, what is interrupted goes on with the same command.

sact-tf serving-client --server localhost:8500 --name sact cat.jpg dogs/
sact-tf serving-client --server localhost:8501 --rest --name sact cat.jpg \
        --halting_bias 2
sact-tf serving-client --server localhost:8500 --name sact cat.jpg \
        --explain --output drawn
"""

import argparse
import os
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from sact_tf import resumable, visualization
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import image_files
from sact_tf.serving.client import Client, ServingError, per_image
from sact_tf.serving.detection import AS_EXPORTED

_MAP = "ponder_cost_map"


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "images",
        nargs="+",
        help="image files, folders (searched), or glob patterns",
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--rest", action="store_true", help="REST instead of gRPC")
    parser.add_argument(
        "--name", default="sact", help="of the model on the server (default: sact)"
    )
    parser.add_argument("--version", type=int, help="default: the latest")
    parser.add_argument(
        "--halting_bias",
        type=float,
        default=0.0,
        help="above zero: sooner, less accurate; below zero: later (default: 0)",
    )
    parser.add_argument(
        "--num_proposals",
        type=int,
        help="how many regions of an image a detector looks at (default: as exported)",
    )
    parser.add_argument(
        "--proposal_threshold",
        type=float,
        help="a detector does not look at regions of a lower score (default: as "
        "exported)",
    )
    parser.add_argument(
        "--explain", action="store_true", help="ask for ponder cost maps, too"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FOLDER",
        help="draw the ponder cost maps, and what a detector found, there; needs "
        "--explain",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="show detections from this score on (default: 0.5); --json has all",
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images in a request (default: 8)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds, of a request"
    )
    parser.renamed(model="name")


def run(flags: argparse.Namespace) -> list[dict]:
    """Asks, and draws the answers."""
    if flags.output and not flags.explain:
        raise ValueError("--output draws ponder cost maps; ask for them with --explain")
    command_line.require_at_least(flags, batch_size=1, num_proposals=1)
    if flags.proposal_threshold is not None and not 0 <= flags.proposal_threshold <= 1:
        raise ValueError(
            "--proposal_threshold must be a number from 0 to 1. Received: "
            f"{flags.proposal_threshold}"
        )
    files = image_files.find_named(flags.images)
    answers = _asked(files, flags) if flags.output else _ask(list(files), flags)
    return [_for_machines(answer) for answer in answers]


def show(result: list[dict], flags: argparse.Namespace) -> str:
    """The result for people."""
    return "\n".join(
        f"{answer['image']}: {_title(answer, flags.score)}" for answer in result
    )


def _asked(files, flags):
    """Answers, of which pictures are drawn; what is there already is not asked for."""
    settings = {
        "model": flags.name,
        "version": flags.version,
        "score": flags.score,
        "halting_bias": flags.halting_bias,
        **_limits(flags),
        "images": [str(path.resolve()) for path in files],
    }
    with _client(flags) as client:
        client.versions()  # Complains of a wrong name before the folder is claimed.
    kept = resumable.claim(flags.output, settings, "answers of a server")
    command_line.goes_on()
    names = image_files.output_names(files)
    pictures = {
        path: flags.output / f"{number:04d}_{names[path]}.png"
        for number, path in enumerate(files)
    }
    keys = {path: os.path.abspath(path) for path in files}
    with kept.records("records.jsonl") as records:

        def keep(path, answer):
            _draw(path, answer, flags.score, pictures[path])
            records.add(keys[path], _for_machines(answer))

        done = {p for p in files if keys[p] in records and pictures[p].exists()}
        _ask([path for path in files if path not in done], flags, keep)
        return [records[key] for key in keys.values()]


def _ask(paths, flags, keep=lambda path, answer: None):
    """Answers of the server, a dict of arrays for each image; `keep` has each first."""
    answers = []
    signature = "explain" if flags.explain else "serving_default"
    limits = _limits(flags)
    if limits:
        signature = "limited_explain" if flags.explain else "limited"
    with (
        _client(flags) as client,
        tqdm(total=len(paths), desc="asking", unit="image") as progress,
    ):
        for start in range(0, len(paths), flags.batch_size):
            batch = paths[start : start + flags.batch_size]
            inputs = {
                "images": [_sent(path) for path in batch],
                "halting_bias": flags.halting_bias,
                **limits,
            }
            answer = per_image(_predict(client, signature, inputs, flags))
            for path, values in zip(batch, answer, strict=True):
                answers.append({"image": str(path), **values})
                keep(path, answers[-1])
            progress.update(len(batch))
    return answers


def _predict(client, signature, inputs, flags):
    try:
        return client.predict(signature, inputs)
    except ServingError as error:
        if f'"{signature}" not found' not in str(error):
            raise
        raise ValueError(
            f"{flags.name} cannot be told which regions to look at: it is no "
            f"detector, or an earlier version has exported it. ({error})"
        ) from error


def _limits(flags):
    """Which regions a detector looks at; empty where nothing is said of it."""
    given = {k: getattr(flags, k) for k in ("num_proposals", "proposal_threshold")}
    if all(value is None for value in given.values()):
        return {}
    # REST asks for all inputs.
    return {k: AS_EXPORTED if value is None else value for k, value in given.items()}


def _client(flags):
    return Client(
        flags.server,
        flags.name,
        version=flags.version,
        protocol="rest" if flags.rest else "grpc",
        timeout=flags.timeout,
    )


def _sent(path):
    try:
        return image_files.as_png_or_jpeg(path)
    except image_files.UnknownFormatError:
        return path.read_bytes()  # The server says which one it is.


def _title(answer, score):
    if "boxes" in answer:
        answer = _confident(answer, score)
    sure = answer["scores" if "boxes" in answer else "probabilities"]
    best = ", ".join(
        f"{name} {100 * share:.1f} %"
        for name, share in zip(answer["names"], sure, strict=True)
    )
    cost = f"ponder cost {answer['ponder_cost']:.2f}, {answer['flops']:.3g} FLOPs"
    if "head_flops" in answer:
        cost += f", of the region heads {answer['head_flops']:.3g}"
    return f"{best or 'nothing'}; {cost}"


def _confident(answer, score):
    """The answer of a detector without detections that are less sure."""
    chosen = np.asarray(answer["scores"]) >= score
    keys = ("boxes", "classes", "names", "scores")
    return {**answer, **{key: np.asarray(answer[key])[chosen] for key in keys}}


def _for_machines(answer):
    return {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in answer.items()
        if not key.endswith(_MAP)
    }


def _draw(path, answer, score, picture):
    if "boxes" in answer:
        figure = _detections(path, _confident(answer, score))
    else:
        figure = _classification(path, answer)
    visualization.save(figure, picture)


def _detections(path, answer):
    total = answer["flops"] + answer["head_flops"]
    return visualization.detections(
        [_pixels(path)],
        [answer],
        [answer["ponder_cost_map"]],
        dict(zip(answer["classes"].tolist(), answer["names"], strict=True)),
        titles=[f"ponder cost {answer['ponder_cost']:.2f}, {total:.3g} FLOPs"],
    )


def _classification(path, answer):
    total = answer["ponder_cost_map"]
    record = {
        "ponder_cost_map": total[np.newaxis, ..., np.newaxis],
        "blocks": [
            {"name": key.removesuffix(f"_{_MAP}"), "ponder_cost": value[np.newaxis]}
            for key, value in answer.items()
            if key.startswith("block") and key.endswith(_MAP)
        ],
    }
    return visualization.ponder_cost_maps(
        _pixels(path, answer["map_region"], total.shape)[np.newaxis],
        record,
        [f"{answer['names'][0]} {100 * answer['probabilities'][0]:.1f} %"],
    )


def _pixels(path, region=(0.0, 0.0, 1.0, 1.0), shape=None):
    """A part of the image, in [-1, 1]; at a size of its own if none is given."""
    image = Image.fromarray(image_files.read(path))
    width, height = image.size
    ymin, xmin, ymax, xmax = map(float, region)
    box = (xmin * width, ymin * height, xmax * width, ymax * height)
    pixels = image.resize(shape[::-1] if shape else image.size, box=box)
    return np.asarray(pixels) / np.float32(127.5) - 1


COMMAND = command_line.Command(
    "serving_client", __doc__, add_flags, run, show, "print the answers as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
