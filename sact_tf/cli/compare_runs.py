"""One table of several classification runs, each evaluated on its validation data.

Runs are folders that sact-tf train has written (--model_dir), or checkpoints in them.
With --output also pictures: accuracy against FLOPs, and the curves of the trainings.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tqdm import tqdm

from sact_tf import visualization
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import report
from sact_tf.model_garden import runs

_TABLE, _RESULTS = "table.md", "results.json"
_FLOPS, _CURVES = "accuracy_against_flops.png", "training_curves.png"
#: What is drawn of the summaries, and how its axis is called.
_DRAWN = {"accuracy": "accuracy", "ponder_cost": "ponder cost", "flops": "FLOPs"}


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("runs", nargs="+", help="folders of runs, or checkpoints")
    parser.add_argument("--output", type=pathlib.Path, help="folder for files")


def run(flags: argparse.Namespace) -> dict:
    """Evaluates and draws."""
    if flags.output:
        # Looked at before hours are spent.
        files = (_TABLE, _RESULTS, _FLOPS, _CURVES)
        taken = [name for name in files if (flags.output / name).exists()]
        if taken:
            raise ValueError(
                f"{flags.output} has {taken[0]} already. Give another --output, or "
                "move that one away"
            )
    opened = [runs.load(path) for path in flags.runs]
    names = [os.path.basename(run.folder.rstrip("/")) for run in opened]
    rows = [evaluate(run, name) for run, name in zip(opened, names, strict=True)]
    result = {"rows": [row.as_dict() for row in rows]}
    table = report.markdown_table(rows)
    if flags.output:
        flags.output.mkdir(parents=True, exist_ok=True)
        (flags.output / _TABLE).write_text(table + "\n", encoding="utf-8")
        text = json.dumps(result, indent=1) + "\n"
        (flags.output / _RESULTS).write_text(text, encoding="utf-8")
        figure = visualization.accuracy_against_flops(result["rows"])
        visualization.save(figure, flags.output / _FLOPS)
        curves = [training_curves(run.folder) for run in opened]
        figure = visualization.training_curves(dict(zip(names, curves, strict=True)))
        visualization.save(figure, flags.output / _CURVES)
    return result


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return report.markdown_table([report.Row(**row) for row in result["rows"]])


def evaluate(run: runs.Run, name: str) -> report.Row:
    """The row of a run, with a progress bar."""
    batches = tqdm(
        run.validation_batches(), desc=name, unit="batch", file=sys.stderr, leave=False
    )
    return report.evaluate(run.network, batches, name)


def training_curves(folder: str) -> dict[str, list[tuple[int, float]]]:
    """Curves of a run's summaries: steps and values of "accuracy, train" and so on."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    events = EventMultiplexer().AddRunsFromDirectory(folder).Reload()
    curves = {}
    for part, content in events.Runs().items():
        for tag in sorted(set(_DRAWN) & set(content["tensors"])):
            curves[f"{_DRAWN[tag]}, {part}"] = sorted(
                (event.step, float(tf.make_ndarray(event.tensor_proto)))
                for event in events.Tensors(part, tag)
            )
    return curves


COMMAND = command_line.Command("compare_runs", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
