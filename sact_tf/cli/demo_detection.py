"""The detection demo: Faster R-CNN with SACT on digit scenes, from nothing.

Trains a small plain network to tell digits on small scenes; from its weights a plain
detector on scenes with one to four digits, with batch norm that learns along; and from
its weights a SACT detector, with fixed batch norm as in the paper. What is there is
used again, and what was interrupted goes on. The recipe is in
classification_configs/digit_scenes_small.yaml and
object_detection_configs/digit_scenes_*.yaml.
"""

import argparse
import contextlib
import io
import pathlib
import time

import numpy as np
import tensorflow as tf
from official.core import exp_factory
from official.modeling import hyperparams
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from sact_tf import folders, visualization
from sact_tf.checkpoints import patterns
from sact_tf.cli import command_line
from sact_tf.evaluation import detection
from sact_tf.model_garden import (
    detection_configs,
    detectors,
    registry_imports,  # noqa: F401
    runs,
)

_ROOT = pathlib.Path(__file__).parents[2]
#: Folder, experiment and config of each; each starts from the one before.
_STAGES = (
    (
        "1-classifier",
        "sact_resnet_digit_scenes",
        "classification_configs/digit_scenes_small.yaml",
    ),
    (
        "2-plain",
        "sact_fasterrcnn_digit_scenes",
        "object_detection_configs/digit_scenes_plain.yaml",
    ),
    (
        "3-sact",
        "sact_fasterrcnn_digit_scenes",
        "object_detection_configs/digit_scenes_sact.yaml",
    ),
)
_NAMES = {digit + 1: str(digit) for digit in range(10)}
_SHOWN = 4
_SCORE_SHOWN = 0.5

#: For trying the tool out: seconds instead of minutes, and no useful numbers.
_QUICK = {
    "task": {
        "model": {
            "backbone": {
                "sact_resnet": {
                    "units": [1, 2, 2, 1],
                    "base_channels": 4,
                    "root_channels": 4,
                }
            }
        },
        "train_data": {"global_batch_size": 2},
        "validation_data": {"num_scenes": 5},
    },
    "trainer": {"train_steps": 2, "steps_per_loop": 1, "checkpoint_interval": 1},
}
_QUICK_DETECTION = {
    "task": {
        "model": {"proposal_filters": 8, "num_proposals": 10, "num_sampled": 10},
        "reference_units": [1, 2, 2],
    }
}


def run(flags: argparse.Namespace) -> dict:
    """Runs the demo and writes everything into the output folder."""
    output, quick = flags.output, flags.quick
    began = time.monotonic()
    tf.get_logger().setLevel("ERROR")
    stages = [
        (output / "training" / name, _params(experiment, path, quick))
        for name, experiment, path in _STAGES
    ]
    recipe = {place.name: params.as_dict() for place, params in stages}
    patterns.refuse(output, "A run")
    folders.claim(output, "recipe.json", recipe, "output of the detection demo")
    before = ""
    for place, params in stages:
        params.task.init_checkpoint = before
        _train(params, place)
        before = str(place)

    print("\nEvaluating on scenes of digits that were never seen in training")
    (plain_row, _, _), (sact_row, auc, pictures) = (
        _evaluate(detectors.load(place), name)
        for (place, _), name in zip(stages[1:], ("plain", "SACT"), strict=True)
    )
    figure = visualization.detections(**pictures, names=_NAMES)
    visualization.save(figure, output / "detections.png")
    table = detection.markdown_table([plain_row, sact_row])
    (output / "table.md").write_text(table + "\n", encoding="utf-8")
    result = {
        "rows": [plain_row.as_dict(), sact_row.as_dict()],
        "box_auc": auc,
        "seconds": time.monotonic() - began,
    }
    folders.write_json(output / "results.json", result)
    return result


def show(result: dict, flags: argparse.Namespace) -> str:
    """The table, and what there is to see."""
    plain_row, sact_row = (detection.Row(**row) for row in result["rows"])
    return f"""
{detection.markdown_table([plain_row, sact_row])}

AP50 is {plain_row.metrics["AP50"]:.3f} for the plain detector and \
{sact_row.metrics["AP50"]:.3f} for SACT, whose feature extractor needs
{100 * sact_row.share:.1f} % of the FLOPs.
Its ponder cost map separates the digits' boxes from background with a ROC AUC of \
{result["box_auc"]:.3f}.
({sact_row.num_images} validation scenes; {result["seconds"]:.0f} seconds.)

Where things are, in {flags.output}/:
  detections.png          scenes with detections, beside where SACT spent its time
  table.md, results.json  the numbers
  training/               the runs, for `sact-tf detect` and `evaluate-detection`;
                          `tensorboard --logdir` shows the curves"""


def _params(experiment, path, quick):
    if not (_ROOT / path).is_file():
        raise ValueError(f"{_ROOT / path} is not here: this demo runs in a checkout")
    params = exp_factory.get_exp_config(experiment)
    params = hyperparams.override_params_dict(params, str(_ROOT / path), is_strict=True)
    if quick:
        params.override(_QUICK, is_strict=True)
        if isinstance(params.task, detection_configs.DetectionTask):
            params.override(_QUICK_DETECTION, is_strict=True)
    params.validate()
    return params


def _train(params, folder):
    """Trains, unless that has been done."""
    steps = params.trainer.train_steps
    done = runs.steps_done(str(folder))
    print(f"\n{folder.name}: {steps} steps" + (f", {done} done" if done else ""))
    if done >= steps:
        return
    bar = tqdm(total=steps, initial=done, desc=folder.name, unit="step")

    def show(logs):
        loss = float(logs["training_loss"])
        if not np.isfinite(loss):
            raise RuntimeError(f"The loss of {folder.name} became {loss}")
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update(min(params.trainer.steps_per_loop, steps - bar.n))

    # The Garden prints all metrics of every interval; TensorBoard has them.
    with bar, contextlib.redirect_stdout(io.StringIO()):
        runs.train(params, folder, actions=[show])


def _evaluate(run, name):
    """A row; ROC AUC of ponder cost for pixels in boxes; something to show."""
    evaluation = detection.Evaluation()
    costs, objects = [], []
    pictures = {"images": [], "found": [], "maps": []}
    bar = tqdm(
        run.labelled_images(),
        desc=name,
        unit="scene",
        total=run.task.validation_data.num_scenes,
        leave=False,
    )
    for images, labels in bar:
        found = evaluation.detect(
            run.detector,
            images,
            labels,
            reference_units=run.task.reference_units,
        )
        cost = found["record"]["ponder_cost_map"][0, ..., 0].numpy()
        costs.append(cost)
        objects.append(_inside(labels["boxes"][0].numpy(), cost.shape))
        if len(pictures["images"]) < _SHOWN:
            pictures["images"].append(images[0].numpy())
            pictures["maps"].append(cost)
            pictures["found"].append(_confident(found))
    auc = float(roc_auc_score(np.ravel(objects), np.ravel(costs)))
    return evaluation.row(name), auc, pictures


def _inside(boxes, size):
    """Bool [H, W]: the pixels whose centres are in some box."""
    rows, columns = (np.arange(side) + 0.5 for side in size)
    inside = np.zeros(size, bool)
    for ymin, xmin, ymax, xmax in boxes[boxes[:, 2] > 0]:
        in_rows, in_columns = (
            (ymin < rows) & (rows < ymax),
            (xmin < columns) & (columns < xmax),
        )
        inside |= in_rows[:, np.newaxis] & in_columns
    return inside


def _confident(found):
    """Detections of the one image that are worth drawing."""
    shown = found["scores"][0].numpy() >= _SCORE_SHOWN
    return {
        name: found[name][0].numpy()[shown] for name in ("boxes", "scores", "classes")
    }


COMMAND = command_line.demo(
    "demo_detection", __doc__, "demo_detection_output", run, show
)

if __name__ == "__main__":
    COMMAND.main()
