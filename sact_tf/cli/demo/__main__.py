"""The demo: SACT on digit scenes, from nothing to a picture, a table and a SavedModel.

Trains a small plain ResNet on scenes of handwritten digits, then a SACT network from
its weights; and, to compare with, the plain network for as many epochs more, and a
plain network of about SACT's FLOPs (these two in a second process, with a log in
training/). What is there already is used again, and what was interrupted goes on.
"""

import argparse
import contextlib
import io
import pathlib
import sys
import time
from dataclasses import asdict

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from sact_tf import folders, resumable, visualization
from sact_tf.checkpoints import patterns
from sact_tf.cli import command_line
from sact_tf.cli.demo import clock
from sact_tf.cli.demo.beside import Beside
from sact_tf.cli.demo.first_look import MAPS, PICTURE, Look
from sact_tf.cli.demo.processes import share_accelerators
from sact_tf.cli.demo.recipe import BASELINE, LONGER, QUICK, SACT, Recipe
from sact_tf.cli.demo.trainer import Trainer
from sact_tf.data import digit_scenes
from sact_tf.evaluation import baselines, report

#: What the curve of accuracy against FLOPs is drawn for, beside no bias.
HALTING_BIASES = (-3.0, 3.0)
_CURVE, _TABLE, _RESULTS = "accuracy_against_flops.png", "table.md", "results.json"
_NETWORK, _SAVED_MODEL = "sact.keras", "saved_model"
_WRITTEN = (PICTURE, MAPS, _CURVE, _TABLE, _RESULTS, _NETWORK, _SAVED_MODEL)


def run(flags: argparse.Namespace) -> dict:
    """Runs the demo."""
    return run_recipe(QUICK if flags.quick else Recipe(), flags.output)


def run_recipe(recipe: Recipe, output: pathlib.Path) -> dict:
    """Runs the demo and writes everything into the output folder."""
    began = time.monotonic()
    # Networks of many shapes in one process: TensorFlow warns of retracing.
    tf.get_logger().setLevel("ERROR")
    patterns.refuse(output, "The demo's SavedModel")
    folders.claim(output, "recipe.json", asdict(recipe), "demo output")
    kept = resumable.Run(output)
    if all((output / name).exists() for name in _WRITTEN):
        return kept.read(_RESULTS)
    share_accelerators()
    say = sys.stdout.write
    look = Look(recipe, output, say)
    train = Trainer(recipe, output, say, look=look)

    plain = train.first()
    look.offer(plain, recipe.look_after)
    with Beside(recipe, output, LONGER, recipe.units, say) as beside:
        sact = train.second(SACT, "sact")
        scenes = _validation_scenes(recipe)
        row, costs = _evaluate(sact, scenes)
        beside.wait()

    units = baselines.nearest_flops(plain, scenes[0]["image"], row)
    with Beside(recipe, output, BASELINE, units, say) as beside:
        say("\nEvaluating on scenes of digits that were never seen in training\n")
        longer = train.second(LONGER, "none")
        rows = [report.evaluate(longer, _pairs(scenes, "plain"), "plain"), row]
        curve = {0.0: row}
        for bias in HALTING_BIASES:
            pairs = _pairs(scenes, f"halting bias {bias}")
            curve[bias] = report.evaluate(sact, pairs, "SACT", bias)
        curve = dict(sorted(curve.items()))
        auc = digit_auc(scenes, costs)
        say("\nDrawing and exporting\n")
        look.draw(sact)
        difference = _export(sact, output, scenes[0]["image"])
        beside.wait()
    baseline = train.second(BASELINE, "none", units)
    look.close()
    name = "plain, same FLOPs"
    rows.append(report.evaluate(baseline, _pairs(scenes, name), name))
    speeds = report.images_per_second([longer, sact, baseline], scenes[0]["image"])
    rows = [
        report.Row(**{**row.as_dict(), "images_per_second": speed})
        for row, speed in zip(rows, speeds, strict=True)
    ]
    name = f"SACT, halting bias {min(curve):g} to {max(curve):g}"
    points = [{**row.as_dict(), "curve": name} for row in curve.values()] + [
        rows[0].as_dict(),
        rows[2].as_dict(),
    ]
    figure = visualization.accuracy_against_flops(points)
    visualization.save(figure, output / _CURVE)
    say("\nTiming a large network\n")
    result = {
        "rows": [row.as_dict() for row in rows],
        "halting_bias_curve": [
            {"halting_bias": bias, **row.as_dict()} for bias, row in curve.items()
        ],
        "share_of_flops": rows[1].flops / rows[0].flops,
        "digit_auc": auc,
        "reloaded_model_differs_by": difference,
        "clock": clock.measure(quick=recipe == QUICK),
        "seconds": time.monotonic() - began,
    }
    (output / _TABLE).write_text(_table(result) + "\n", encoding="utf-8")
    kept.write(_RESULTS, result)
    return kept.read(_RESULTS)


def show(result: dict, flags: argparse.Namespace) -> str:
    """The table, what there is to see, and what the clock says."""
    return f"""
{_table(result)}

SACT needs {100 * result["share_of_flops"]:.1f} % of the plain network's FLOPs.
Its ponder cost map separates digits from background with a ROC AUC of \
{result["digit_auc"]:.3f}.
The reloaded SavedModel differs from the network by at most \
{result["reloaded_model_differs_by"]:.1e}.
({result["rows"][0]["num_images"]} validation scenes; {result["seconds"]:.0f} seconds.)

Where things are, in {flags.output}/:
  ponder_cost_maps.png        scenes beside where the network spent its time
  accuracy_against_flops.png  what the FLOPs buy
  table.md, results.json      the numbers
  saved_model/                the SACT network, to serve
  sact.keras                  the same, for the other tools and to train on
  training/                   checkpoints; `tensorboard --logdir` shows the curves
  first_look.png              the first picture

{clock.show(result["clock"])}
"""


def _table(result):
    """The rows; and why, if SACT is slower than the plain network."""
    plain, sact, _ = rows = [report.Row(**row) for row in result["rows"]]
    table = report.markdown_table(rows)
    if sact.images_per_second < plain.images_per_second:
        share = sact.images_per_second / plain.images_per_second
        table += (
            f"\n\nSACT gets through {100 * share:.0f} % as many images per second as "
            "the plain network, with fewer FLOPs:\na network as narrow as this one "
            "computes a position in less time than it takes to leave it out."
        )
    return table


def digit_auc(scenes: list[dict], costs: list[np.ndarray]) -> float:
    """ROC AUC of ponder costs as a detector of digit pixels, over all pixels."""
    digits = np.concatenate([np.ravel(scene["digit_mask"]) for scene in scenes])
    return float(roc_auc_score(digits, np.concatenate(costs)))


def _evaluate(sact, scenes):
    """The row of the SACT network, and the ponder costs of all pixels, by batch."""
    evaluation, costs = report.Evaluation(len(sact.blocks)), []
    for scene in tqdm(scenes, desc="SACT", unit="batch", leave=False):
        record = sact.introspect(scene["image"])
        evaluation.add(record, scene["label"])
        costs.append(np.ravel(record["ponder_cost_map"]))
    return evaluation.row("SACT"), costs


def _validation_scenes(recipe):
    dataset = digit_scenes.dataset(
        "validation",
        min(100, recipe.validation_scenes),
        num_scenes=recipe.validation_scenes,
        size=recipe.size,
        supervised=False,
    )
    return list(dataset.as_numpy_iterator())


def _pairs(scenes, name):
    for scene in tqdm(scenes, desc=name, unit="batch", leave=False):
        yield scene["image"], scene["label"]


def _export(model, output, images):
    """Saves the network, loads it again, and returns how far the logits are apart."""
    model.save(output / _NETWORK)
    # Inference only, which takes a fifth of the time of what model.save writes.
    with contextlib.redirect_stdout(io.StringIO()):  # It lists all variables.
        model.export(output / _SAVED_MODEL)
    reloaded = tf.saved_model.load(str(output / _SAVED_MODEL))
    logits = model(images, training=False)
    difference = float(tf.reduce_max(tf.abs(reloaded.serve(images) - logits)))
    if not difference <= 1e-3:
        raise RuntimeError(
            f"The reloaded SavedModel gives other logits, off by {difference}"
        )
    return difference


COMMAND = command_line.demo("demo", __doc__, "demo_output", run, show)

if __name__ == "__main__":
    COMMAND.main()
