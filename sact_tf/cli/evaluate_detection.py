r"""What detectors reach and what they cost: rows of the paper's table 1.

For every run: FLOPs of its feature extractor, mean and standard deviation over images,
also as a share of those of a plain one (ResNet-101's, unless --reference_units) on the
same images; FLOPs of its region heads; COCO's twelve metrics; and seconds per image,
of the whole detector and of the feature extractor alone, dense and sparse. With
--output, an evaluation that was interrupted goes on. Without --model, only what the
plain feature extractors of ResNet-50 and ResNet-101 cost on these images. With
--num_proposals 300 100 30 a row for each number: what there is to win where fewer
regions are looked at; and with --proposal_threshold 0 0.1 for each of these, too.

    sact-tf evaluate-detection --annotations instances_val2017.json \
        --images val2017
    sact-tf evaluate-detection --model runs/plain runs/sact --output evaluation
"""

import argparse
import contextlib
import itertools
import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from sact_tf import folders, resumable
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import coco, image_files
from sact_tf.detection import costs
from sact_tf.detection.config import (
    NUM_BLOCKS,
    check_proposal_threshold,
)
from sact_tf.evaluation import detection
from sact_tf.model_garden import detection_configs, detectors, runs
from sact_tf.models import options
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from sact_tf.models.imagenet import FAMILY

_SAVE_EVERY = 60.0  # seconds
_PAPER_FLOPS = 1.42e11
_EXECUTIONS = {"dense": "dense", "sparse": "auto"}


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--model", nargs="*", default=[], help="folders of detection runs"
    )
    parser.add_argument(
        "--annotations", help="COCO JSON (default: the run's validation data)"
    )
    parser.add_argument("--images", help="folder of the images of --annotations")
    parser.add_argument("--num_images", type=int, help="only the first so many images")
    parser.add_argument(
        "--reference_units",
        nargs=NUM_BLOCKS,
        type=int,
        help="residual units of the plain feature extractor that is 100 %% (default: "
        "those of the run's task.reference_units)",
    )
    parser.add_argument(
        "--timed_images",
        type=int,
        default=8,
        help="how many images to time, all networks in turn (default: 8; 0: none)",
    )
    parser.add_argument(
        "--halting_bias",
        type=float,
        default=0.0,
        help="added to every halting logit of ACT and SACT networks; above zero they "
        "stop sooner",
    )
    parser.add_argument(
        "--num_proposals",
        nargs="+",
        type=int,
        metavar="N",
        help="how many regions of an image are looked at (default: all that the run "
        "proposes; more can be proposed than in training); a row each",
    )
    parser.add_argument(
        "--proposal_threshold",
        nargs="+",
        type=float,
        metavar="SCORE",
        help="regions of a lower score are not looked at (default: as in the run); a "
        "row each",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for table.md, results.json and the detections",
    )
    parser.renamed(time_images="timed_images")


def run(flags: argparse.Namespace) -> dict:
    """Evaluates."""
    _check(flags)
    if not flags.model:
        return _plain(flags)
    rows = _rows(flags)
    table = detection.markdown_table(rows)
    result = {"rows": [row.as_dict() for row in rows]}
    if flags.output:
        folders.write_json(flags.output / "results.json", result)
        (flags.output / "table.md").write_text(table + "\n", encoding="utf-8")
    return result


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    if not flags.model:
        return _show_plain(result)
    return detection.markdown_table([detection.Row(**row) for row in result["rows"]])


def _check(flags):
    if bool(flags.annotations) != bool(flags.images):
        raise ValueError("--annotations and --images go together.")
    if not flags.model and not flags.annotations:
        raise ValueError("Give --model, or --annotations and --images, or all three.")
    # Before hours are spent on the first of several runs.
    for threshold in flags.proposal_threshold or []:
        check_proposal_threshold(threshold, "--proposal_threshold")
    command_line.require_at_least(flags, num_images=1, timed_images=0, num_proposals=1)


class _Looked(NamedTuple):
    """Which regions of an image are looked at; None is what a detector does by itself.

    Attributes:
      number: how many.
      threshold: of at least what score.
    """

    number: int | None = None
    threshold: float | None = None

    @classmethod
    def all_of(cls, flags):
        """What a row is asked for, of each detector."""
        numbers = flags.num_proposals or [None]
        return [cls(*each) for each in itertools.product(numbers, _thresholds(flags))]

    def name(self, run, flags):
        """Of a row, and of its file."""
        parts = [run]
        if self.number is not None:
            parts.append(f"{self.number} regions")
        if len(_thresholds(flags)) > 1:
            parts.append(f"scores from {self.threshold:g}")
        return ", ".join(parts)

    def suffix(self, flags):
        """Of the file of a row."""
        number = "" if self.number is None else f"-{self.number}"
        several = len(_thresholds(flags)) > 1
        return f"{number}-from-{self.threshold:g}" if several else number


def _thresholds(flags):
    return flags.proposal_threshold or [None]


def _load(path, flags, execution=None):
    """A run whose detector proposes as many regions as are to be looked at."""
    run = detectors.load(path, execution)
    most = max(flags.num_proposals or [0])
    if most <= run.detector.config.num_proposals:
        return run
    return detectors.load(path, execution, most)


def _plain(flags):
    """FLOPs of plain feature extractors, from the sizes in the JSON alone."""
    annotations = coco.load(flags.annotations, flags.images)
    data = detection_configs.DetectionData()
    sizes = np.array(
        [[i["height"], i["width"]] for i in annotations.images[: flags.num_images]]
    )
    scales = np.minimum(
        data.shorter_side / sizes.min(axis=1), data.longer_side / sizes.max(axis=1)
    )
    resized = np.rint(sizes * scales[:, np.newaxis]).astype(np.int64)
    # The width is that of the deep ones, which is all that their costs depend on.
    config = BackboneConfig(units=(1, 1, 1, 1), adaptivity="none")
    extractor = Backbone(config, NUM_BLOCKS)
    rows = {}
    for depth in (50, 101):
        units = FAMILY.depths[depth][:NUM_BLOCKS]
        flops = costs.plain_flops(extractor, resized, units).numpy()
        rows[f"ResNet-{depth}"] = {
            "flops": float(flops.mean()),
            "flops_std": float(flops.std()),
            "num_images": len(flops),
        }
    return rows


def _show_plain(rows):
    lines = [
        f"{name}: {row['flops']:.4g} ± {row['flops_std']:.2g} FLOPs per image"
        for name, row in rows.items()
    ]
    deepest = rows["ResNet-101"]
    share = deepest["flops"] / _PAPER_FLOPS
    lines.append(
        f"({deepest['num_images']} images; the paper has {_PAPER_FLOPS:.3g} for "
        f"ResNet-101 on the whole of COCO val: this is {100 * share:.1f} % of it.)"
    )
    return "\n".join(lines)


def _rows(flags):
    if flags.output:
        settings = {
            key: value
            for key, value in vars(flags).items()
            if key not in ("output", "json")
        }
        # As folders of earlier versions have it.
        settings["time_images"] = settings.pop("timed_images")
        if len(_thresholds(flags)) == 1:  # As earlier versions have it.
            settings["proposal_threshold"] = _thresholds(flags)[0]
        settings["checkpoints"] = [runs.locate(path)[1] for path in flags.model]
        resumable.claim(flags.output, settings, "evaluation")
        command_line.goes_on()
    evaluations, names = [], []
    for number, path in enumerate(flags.model, 1):
        run = _load(path, flags)
        name = pathlib.Path(run.folder).resolve().name
        store = f"{number}-{image_files.short_name(name)}"
        for looked in _Looked.all_of(flags):
            names.append(looked.name(name, flags))
            file = f"{store}{looked.suffix(flags)}.json"
            evaluations.append(_evaluate(run, names[-1], file, flags, looked))
    seconds = _time(flags) if flags.timed_images else [{}] * len(names)
    return [
        evaluation.row(name, times)
        for evaluation, name, times in zip(evaluations, names, seconds, strict=True)
    ]


def _batches(run, flags):
    """Images one by one, and their labels."""
    data = None
    if flags.annotations:
        theirs = run.task.validation_data
        sides = {
            side: getattr(theirs, side)
            for side in ("shorter_side", "longer_side")
            if hasattr(theirs, side)
        }
        data = detection_configs.DetectionData(
            annotation_file=flags.annotations, image_dir=flags.images, **sides
        )
    batches = run.labelled_images(data)
    return batches.take(flags.num_images) if flags.num_images else batches


def _evaluate(run, name, store, flags, looked):
    kept = flags.output and resumable.Run(flags.output)
    evaluation = detection.Evaluation(kept.read(store) if kept else None)
    saving = kept.saving(store, _SAVE_EVERY) if kept else None
    detector, halting_bias = run.detector, _halting_bias(run, flags)
    units = flags.reference_units or run.task.reference_units
    batches = _batches(run, flags).skip(evaluation.num_images)
    bar = tqdm(
        batches,
        desc=name,
        unit="image",
        initial=evaluation.num_images,
        total=flags.num_images,
        leave=False,
    )
    with saving or contextlib.nullcontext():
        for images, labels in bar:
            evaluation.detect(
                detector,
                images,
                labels,
                reference_units=units,
                halting_bias=halting_bias,
                num_proposals=looked.number,
                proposal_threshold=looked.threshold,
            )
            if saving:
                saving.offer(evaluation.state())
    return evaluation


def _halting_bias(run, flags):
    """Of the flags; zero for a network among others that has no halting scores."""
    adaptivity = run.detector.halting_adaptivity
    if len(flags.model) == 1:
        options.check_halting_bias(flags.halting_bias, adaptivity)
    return flags.halting_bias if options.has_halting_scores(adaptivity) else 0.0


def _time(flags):
    """Seconds per image of every detector, and of its feature extractor alone.

    All of them take turns, so that they can be compared; the better of two counts.
    """
    batches, candidates = [], {}
    several = _Looked.all_of(flags)
    for path in flags.model:
        first = len(batches)
        for kind, execution in _EXECUTIONS.items():
            run = _load(path, flags, execution)
            detector, bias = run.detector, _halting_bias(run, flags)
            for index, looked in enumerate(several, first):
                candidates[index, kind] = _detecting(detector, bias, looked)
            extractor = detector.extractor
            if not options.has_halting_scores(extractor.adaptivity):
                bias = 0.0  # Of the head alone.
            candidates[first, f"extractor, {kind}"] = _extracting(extractor, bias)
        batches += [list(_batches(run, flags).take(flags.timed_images))] * len(several)
    best = {key: np.full(len(batches[key[0]]), np.inf) for key in candidates}
    turns = [
        (image, key)
        for _ in range(3)  # The first one traces.
        for image in range(max(map(len, batches)))
        for key in candidates
        if image < len(batches[key[0]])
    ]
    traced = set()
    for image, key in tqdm(turns, "timing", leave=False, file=sys.stderr):
        images, labels = batches[key[0]][image]
        began = time.perf_counter()
        candidates[key](images, labels["image_shapes"])
        spent = time.perf_counter() - began
        if key in traced:
            best[key][image] = min(best[key][image], spent)
        traced.add(key)
    return [
        {kind: float(best[i, kind].mean()) for i, kind in candidates if i == index}
        for index in range(len(batches))
    ]


def _detecting(detector, halting_bias, looked):
    def detect(images, image_shapes):
        found = detector.detect(images, image_shapes, halting_bias, *looked)
        found["scores"].numpy()

    return detect


def _extracting(extractor, halting_bias):
    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)],
        autograph=False,
    )
    def extract(images):
        maps = extractor(images, training=False, halting_bias=halting_bias)
        return maps[max(maps, key=int)]

    # Fetching one number waits for all of the computation, and copies nothing.
    return lambda images, image_shapes: extract(images)[0, 0, 0, 0].numpy()


COMMAND = command_line.Command(
    "evaluate_detection", __doc__, add_flags, run, show, "print the rows as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
