"""The demo: SACT on digit scenes, from nothing to a picture, a table and a SavedModel.

Trains a small plain ResNet on scenes of handwritten digits, then a SACT network from
its weights; and, to compare with, the plain network for as many epochs more, and a
plain network of about SACT's FLOPs. What is there already is used again, and what was
interrupted goes on.
"""

import contextlib
import functools
import io
import pathlib
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import sact_tf
from sact_tf import folders, training, visualization
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.data import digit_scenes
from sact_tf.evaluation import baselines, report
from tools import command_line


@dataclass(frozen=True)
class Recipe:
    """What is trained, and for how long.

    A phase is (size of the scenes, epochs). Training begins on small scenes, which are
    cheap and mostly digit: on large ones alone a network needs many epochs before it
    finds the digits at all.
    """

    units: tuple[int, ...] = (3, 4, 5, 2)
    base_channels: int = 16
    root_channels: int = 16
    batch_size: int = 32
    scenes_per_epoch: int = 5000
    validation_scenes: int = 2000
    size: int = 128
    first_phases: tuple[tuple[int, int], ...] = ((64, 16), (96, 2))
    second_phases: tuple[tuple[int, int], ...] = ((96, 3), (128, 3))
    first_rate: float = 0.08
    second_rate: float = 0.05
    tau: float = 0.12
    seed: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.scenes_per_epoch // self.batch_size


#: For trying the tool out: seconds instead of minutes, and no useful numbers.
QUICK = Recipe(
    units=(2, 2, 2, 2),
    base_channels=4,
    root_channels=4,
    batch_size=8,
    scenes_per_epoch=16,
    validation_scenes=16,
    first_phases=((64, 1),),
    second_phases=((128, 1),),
)

HALTING_BIASES = (-4.0, -2.0, 0.0, 2.0, 4.0)


def main() -> None:
    """Parses the flags and runs the demo."""
    command_line.run_demo(
        "demo",
        __doc__,
        "demo_output",
        lambda output, quick: run(QUICK if quick else Recipe(), output),
    )


def run(recipe: Recipe, output: pathlib.Path) -> dict:
    """Runs the demo and writes everything into the output folder."""
    began = time.monotonic()
    # Networks of many shapes in one process: TensorFlow warns of retracing.
    tf.get_logger().setLevel("ERROR")
    say = sys.stdout.write
    folders.claim(output, "recipe.json", asdict(recipe), "demo output")
    tf_keras.utils.set_random_seed(recipe.seed)
    train = _Trainer(recipe, output, say)

    plain = train.network("none")
    train(plain, "1-plain", recipe.first_phases, recipe.first_rate)
    sact = train.network("sact")
    initialize_from(sact, plain)
    second = (recipe.second_phases, recipe.second_rate)
    train(sact, "2-sact", *second)
    longer = train.network("none")
    initialize_from(longer, plain)
    train(longer, "3-plain-as-long", *second)

    say("\nEvaluating on scenes of digits that were never seen in training\n")
    scenes = _validation_scenes(recipe)
    names = ["plain", "SACT", "plain, same FLOPs"]
    curve = [
        report.evaluate(sact, _pairs(scenes, f"halting bias {bias}"), names[1], bias)
        for bias in HALTING_BIASES
    ]
    rows = [curve[HALTING_BIASES.index(0.0)]]
    baseline = train.network(
        "none", baselines.nearest_flops(longer, scenes[0]["image"], rows[0])
    )
    initialize_from(baseline, plain)
    train(baseline, "4-plain-same-flops", *second)
    rows.insert(0, report.evaluate(longer, _pairs(scenes, "plain"), names[0]))
    rows.append(report.evaluate(baseline, _pairs(scenes, "baseline"), names[2]))
    models = [longer, sact, baseline]
    speeds = report.images_per_second(models, scenes[0]["image"])
    rows = [
        report.Row(**{**row.as_dict(), "images_per_second": speed})
        for row, speed in zip(rows, speeds, strict=True)
    ]
    auc = digit_auc(sact, scenes)

    say("\nDrawing and exporting\n")
    shown = scenes[0]["image"][:6]
    figure = visualization.ponder_cost_maps(shown, sact.introspect(shown))
    visualization.save(figure, output / "ponder_cost_maps.png")
    points = [
        {**row.as_dict(), "curve": "SACT, halting bias -4 to 4"} for row in curve
    ] + [rows[0].as_dict(), rows[2].as_dict()]
    figure = visualization.accuracy_against_flops(points)
    visualization.save(figure, output / "accuracy_against_flops.png")
    difference = _export(sact, output, scenes[0]["image"])

    table = report.markdown_table(rows)
    (output / "table.md").write_text(table + "\n", encoding="utf-8")
    result = {
        "rows": [row.as_dict() for row in rows],
        "halting_bias_curve": [
            {"halting_bias": bias, **row.as_dict()}
            for bias, row in zip(HALTING_BIASES, curve, strict=True)
        ],
        "share_of_flops": rows[1].flops / rows[0].flops,
        "digit_auc": auc,
        "reloaded_model_differs_by": difference,
        "seconds": time.monotonic() - began,
    }
    folders.write_json(output / "results.json", result)
    say(
        f"""
{table}

SACT needs {100 * result["share_of_flops"]:.1f} % of the plain network's FLOPs.
Its ponder cost map separates digits from background with a ROC AUC of {auc:.3f}.
The reloaded SavedModel differs from the network by at most {difference:.1e}.
({rows[0].num_images} validation scenes; {result["seconds"]:.0f} seconds.)

Where things are, in {output}/:
  ponder_cost_maps.png        scenes beside where the network spent its time
  accuracy_against_flops.png  what the FLOPs buy
  table.md, results.json      the numbers
  saved_model/                the SACT network, to serve
  sact.keras                  the same, for the other tools and to train on
  training/                   checkpoints; `tensorboard --logdir` shows the curves
"""
    )
    return result


class _Trainer:
    """Makes the networks and trains them in stages that are kept on disk."""

    def __init__(self, recipe, output, say):
        self._recipe, self._output, self._say = recipe, output, say
        self._validation = digit_scenes.dataset(
            "validation",
            50,
            num_scenes=min(200, recipe.validation_scenes),
            size=recipe.size,
        ).cache()
        self._shown = next(iter(self._validation))[0][:4]

    def network(self, adaptivity, units=None):
        recipe = self._recipe
        return sact_tf.ResNet(
            units=units or recipe.units,
            adaptivity=adaptivity,
            num_classes=digit_scenes.NUM_CLASSES,
            base_channels=recipe.base_channels,
            root_channels=recipe.root_channels,
            tau=recipe.tau,
            # Statistics of a few hundred steps, not of the many that ImageNet takes.
            batch_norm_momentum=0.97,
        )

    def __call__(self, model, name, phases, rate):
        recipe = self._recipe
        epochs = sum(epochs for _, epochs in phases)
        model.compile(
            tf_keras.optimizers.SGD(
                tf_keras.optimizers.schedules.CosineDecay(
                    rate, epochs * recipe.steps_per_epoch
                ),
                momentum=0.9,
                nesterov=True,
                global_clipnorm=5.0,
            ),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            ["accuracy"],
        )
        for number, (size, epochs) in enumerate(phases):
            self._say(f"\n{name}: {epochs} epochs on scenes of {size} x {size}\n")
            directory = self._output / "training" / name / f"{number + 1}-{size}"
            logs = str(directory / "logs")
            callbacks = [tf_keras.callbacks.TensorBoard(logs, write_graph=False)]
            if model.adaptivity != "none":
                callbacks.append(training.PonderCostMaps(self._shown, logs))
            training.fit(
                model,
                functools.partial(self._scenes, size, number),
                epochs=epochs,
                steps_per_epoch=recipe.steps_per_epoch,
                directory=directory,
                validation_data=self._validation if size == recipe.size else None,
                callbacks=callbacks,
            )

    def _scenes(self, size, phase, step):
        recipe = self._recipe
        # No scene is seen twice: phases and sizes begin far from each other.
        first = (phase * 1000 + size) * 10**6
        return digit_scenes.dataset(
            "train",
            recipe.batch_size,
            start=first + step * recipe.batch_size,
            seed=recipe.seed,
            size=size,
        )


def digit_auc(model, scenes: list[dict]) -> float:
    """ROC AUC of the ponder cost as a detector of digit pixels, over all pixels."""
    costs, digits = [], []
    for scene in scenes:
        record = model.introspect(scene["image"])
        costs.append(np.ravel(record["ponder_cost_map"]))
        digits.append(np.ravel(scene["digit_mask"]))
    return float(roc_auc_score(np.concatenate(digits), np.concatenate(costs)))


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
    model.save(output / "sact.keras")
    # Inference only, which takes a fifth of the time of what model.save writes.
    with contextlib.redirect_stdout(io.StringIO()):  # It lists all variables.
        model.export(output / "saved_model")
    reloaded = tf.saved_model.load(str(output / "saved_model"))
    logits = model(images, training=False)
    difference = float(tf.reduce_max(tf.abs(reloaded.serve(images) - logits)))
    if not difference <= 1e-3:
        raise RuntimeError(
            f"The reloaded SavedModel gives other logits, off by {difference}"
        )
    return difference


if __name__ == "__main__":
    command_line.run(main)
