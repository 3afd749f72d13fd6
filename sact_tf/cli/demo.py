"""The demo: SACT on digit scenes, from nothing to a picture, a table and a SavedModel.

Trains a small plain ResNet on scenes of handwritten digits, then a SACT network from
its weights; and, to compare with, the plain network for as many epochs more, and a
plain network of about SACT's FLOPs (these two in a second process, with a log in
training/). What is there already is used again, and what was interrupted goes on.
"""

import contextlib
import functools
import io
import json
import multiprocessing
import os
import pathlib
import sys
import threading
import time
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import sact_tf
from sact_tf import folders, training, visualization
from sact_tf.checkpoints import patterns
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli import command_line
from sact_tf.data import digit_scenes
from sact_tf.evaluation import baselines, report


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
    first_phases: tuple[tuple[int, int], ...] = ((64, 10),)
    second_phases: tuple[tuple[int, int], ...] = ((96, 2), (128, 4))
    first_rate: float = 0.003
    second_rate: float = 0.0015
    tau: float = 0.085
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

FIRST, LONGER, BASELINE = "1-plain", "3-plain-as-long", "4-plain-same-flops"
#: What the curve of accuracy against FLOPs is drawn for, beside no bias.
HALTING_BIASES = (-4.0, -2.0, 2.0, 4.0)


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
    _share_accelerators()
    say = sys.stdout.write
    patterns.refuse(output, "The demo's SavedModel")
    folders.claim(output, "recipe.json", asdict(recipe), "demo output")
    tf_keras.utils.set_random_seed(recipe.seed)
    train = _Trainer(recipe, output, say)

    plain = train.first()
    with _Beside(recipe, output, LONGER, recipe.units, say) as beside:
        sact = train.second("2-sact", "sact")
        scenes = _validation_scenes(recipe)
        row, costs = _evaluate(sact, scenes)
        beside.wait()

    units = baselines.nearest_flops(plain, scenes[0]["image"], row)
    with _Beside(recipe, output, BASELINE, units, say) as beside:
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
        shown = scenes[0]["image"][:6]
        figure = visualization.ponder_cost_maps(shown, sact.introspect(shown))
        visualization.save(figure, output / "ponder_cost_maps.png")
        difference = _export(sact, output, scenes[0]["image"])
        beside.wait()
    baseline = train.second(BASELINE, "none", units)
    name = "plain, same FLOPs"
    rows.append(report.evaluate(baseline, _pairs(scenes, name), name))
    speeds = report.images_per_second([longer, sact, baseline], scenes[0]["image"])
    rows = [
        report.Row(**{**row.as_dict(), "images_per_second": speed})
        for row, speed in zip(rows, speeds, strict=True)
    ]
    points = [
        {**row.as_dict(), "curve": "SACT, halting bias -4 to 4"}
        for row in curve.values()
    ] + [rows[0].as_dict(), rows[2].as_dict()]
    figure = visualization.accuracy_against_flops(points)
    visualization.save(figure, output / "accuracy_against_flops.png")

    table = report.markdown_table(rows)
    (output / "table.md").write_text(table + "\n", encoding="utf-8")
    result = {
        "rows": [row.as_dict() for row in rows],
        "halting_bias_curve": [
            {"halting_bias": bias, **row.as_dict()} for bias, row in curve.items()
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

    def __init__(self, recipe, output, say, callbacks=()):
        self._recipe, self._output, self._say = recipe, output, say
        self._callbacks = callbacks
        self._first = None
        self._validation = digit_scenes.dataset(
            "validation",
            50,
            num_scenes=min(200, recipe.validation_scenes),
            size=recipe.size,
        ).cache()
        self._shown = next(iter(self._validation))[0][:4]

    def first(self):
        """The plain network that all others start from."""
        if self._first is None:
            recipe = self._recipe
            self._first = self._network("none", recipe.units)
            self._first.begin_as_identity()
            self._train(self._first, FIRST, recipe.first_phases, recipe.first_rate)
        return self._first

    def second(self, name, adaptivity, units=None):
        """A network trained from the weights of the first one."""
        recipe = self._recipe
        model = self._network(adaptivity, units or recipe.units)
        initialize_from(model, self.first())
        self._train(model, name, recipe.second_phases, recipe.second_rate)
        return model

    def _network(self, adaptivity, units):
        recipe = self._recipe
        return sact_tf.ResNet(
            units=units,
            adaptivity=adaptivity,
            num_classes=digit_scenes.NUM_CLASSES,
            base_channels=recipe.base_channels,
            root_channels=recipe.root_channels,
            tau=recipe.tau,
            # Statistics of a few hundred steps, not of the many that ImageNet takes.
            batch_norm_momentum=0.97,
        )

    def _train(self, model, name, phases, rate):
        recipe = self._recipe
        epochs = sum(epochs for _, epochs in phases)
        model.compile(
            # In so few steps Adam comes much further than SGD.
            tf_keras.optimizers.Adam(
                tf_keras.optimizers.schedules.CosineDecay(
                    rate, epochs * recipe.steps_per_epoch
                ),
                global_clipnorm=5.0,
            ),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            ["accuracy"],
        )
        for number, (size, epochs) in enumerate(phases):
            self._say(f"\n{name}: {epochs} epochs on scenes of {size} x {size}\n")
            directory = _place(self._output, name, number, size)
            logs = str(directory / "logs")
            callbacks = [
                tf_keras.callbacks.TensorBoard(logs, write_graph=False),
                *self._callbacks,
            ]
            watched = model.adaptivity != "none" and size == recipe.size
            if watched:
                callbacks.append(training.PonderCostMaps(self._shown, logs))
            training.fit(
                model,
                functools.partial(self._scenes, size, number),
                epochs=epochs,
                steps_per_epoch=recipe.steps_per_epoch,
                directory=directory,
                validation_data=self._validation if watched else None,
                callbacks=callbacks,
            )

    def _scenes(self, size, phase, step):
        recipe = self._recipe
        # No scene is seen twice: phases and sizes begin far from each other.
        first = (phase * 1000 + size) * 10**6
        scenes = digit_scenes.dataset(
            "train",
            recipe.batch_size,
            start=first + step * recipe.batch_size,
            seed=recipe.seed,
            size=size,
        )
        return scenes.map(lambda images, labels: (_of_any_size(images), labels))


def _of_any_size(images):
    """The images, but nobody knows their size: networks are traced once for all."""
    return tf.compat.v1.placeholder_with_default(images, [None, None, None, 3])


def _place(output, name, number, size):
    """Where a phase of a stage is kept."""
    return output / "training" / name / f"{number + 1}-{size}"


def _epochs_done(place):
    """Epochs of a phase that are finished and kept."""
    history = place / "history.json"  # Of sact_tf.training.fit.
    if not history.exists():
        return 0
    return len(json.loads(history.read_text(encoding="utf-8")))


class _Beside:
    """A plain network's second stage in another process, while this one goes on.

    Operations on narrow feature maps are too small to be shared out: two processes with
    a core each train faster than one after the other with both.
    """

    def __init__(self, recipe, output, name, units, say):
        self._name, self._say = name, say
        self._log = output / "training" / f"{name}.log"
        phases = recipe.second_phases
        self._steps = sum(epochs for _, epochs in phases) * recipe.steps_per_epoch
        processes = multiprocessing.get_context("spawn")
        self._done = processes.Value("i", 0)
        self._process = None
        if not all(
            _epochs_done(_place(output, name, number, size)) >= epochs
            for number, (size, epochs) in enumerate(phases)
        ):
            self._process = processes.Process(
                target=_train_beside,
                args=(recipe, output, name, units, self._log, self._done),
                daemon=True,
            )

    def __enter__(self):
        if self._process:
            self._say(f"\n{self._name}: beside the following, log in {self._log}\n")
            self._process.start()
        return self

    def __exit__(self, *_):
        if self._process:
            self._process.terminate()
            self._process.join()

    def wait(self):
        """Waits for it.

        Raises:
          RuntimeError: it failed.
        """
        if not self._process:
            return
        with tqdm(total=self._steps, desc=self._name, unit="step") as bar:
            while self._process.is_alive():
                self._process.join(0.5)
                bar.update(self._done.value - bar.n)
        if self._process.exitcode:
            raise RuntimeError(
                f"Training {self._name} failed with exit code "
                f"{self._process.exitcode}; see {self._log}"
            )


def _train_beside(recipe, output, name, units, log, done):
    """What the other process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    tf.get_logger().setLevel("ERROR")
    _share_accelerators()
    if name == LONGER:
        # Half the cores: with all of them two trainings are in each other's way.
        tf.config.threading.set_intra_op_parallelism_threads(
            max(1, (os.cpu_count() or 2) // 2)
        )
    tf_keras.utils.set_random_seed(recipe.seed)

    def count(batch, logs):
        done.value += 1

    callback = tf_keras.callbacks.LambdaCallback(on_train_batch_end=count)
    _Trainer(recipe, output, sys.stdout.write, [callback]).second(name, "none", units)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _share_accelerators():
    """Keeps a process from taking all of a GPU's memory."""
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


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
