r"""Detects objects in photographs, and shows where the detector computed (figure 10).

For every image a picture, the detections beside the ponder cost map of the feature
extractor; for all of them detections.json, in COCO's format of results, and
images.json, which says which image has which id, what it cost, and its size. Classes
have the names that the run has kept of its data, or those of --labels or --annotations.
Stopped, the same command goes on. An image is known by its path below the folder that
is given.

    sact-tf detect --model runs/sact --output detections \
        --annotations instances_val2017.json photographs/ 'more/*.jpg'
"""

import argparse
import os
import pathlib
import sys
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from sact_tf import resumable, visualization
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import coco, coco_json, image_files, preprocessing
from sact_tf.detection.config import check_num_proposals, check_proposal_threshold
from sact_tf.model_garden import detection_configs, detectors, labels
from sact_tf.models.options import check_halting_bias


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "images", nargs="+", help="image files, folders (searched), or glob patterns"
    )
    parser.add_argument("--model", required=True, help="folder of a detection run")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder")
    parser.add_argument(
        "--annotations",
        help="COCO JSON with names of categories, and with ids of images",
    )
    parser.add_argument(
        "--labels",
        help="names of the classes: a text, one on each line, the background first, or "
        "a COCO JSON (default: those that the run has kept of its data)",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="draw detections from this score on (default: 0.5); the JSON has all",
    )
    parser.add_argument(
        "--halting_bias",
        type=float,
        default=0.0,
        help="added to every halting logit; above zero the network stops sooner",
    )
    parser.add_argument(
        "--num_proposals",
        type=int,
        help="how many regions of an image are looked at (default: all)",
    )
    parser.add_argument(
        "--proposal_threshold",
        type=float,
        help="regions of a lower score are not looked at (default: as in the run)",
    )


def run(flags: argparse.Namespace) -> dict:
    """Detects, draws."""
    files = image_files.find_named(flags.images)
    names, annotated = _annotations(flags.annotations, files)
    if flags.proposal_threshold is not None:
        check_proposal_threshold(flags.proposal_threshold, "--proposal_threshold")
    run = detectors.load(flags.model)
    detector = run.detector
    check_halting_bias(flags.halting_bias, detector.halting_adaptivity)
    if flags.num_proposals is not None:
        most = run.task.model.num_proposals
        check_num_proposals(flags.num_proposals, most, "--num_proposals")
    known = labels.by_class(run.class_names)
    if flags.labels:
        given = labels.read(flags.labels, run.task.model.num_classes)
        names |= labels.by_class(given)
    names = {**known, **names}
    settings = {
        "model": run.checkpoint,
        "images": [str(path.resolve()) for path in files],
        "annotations": flags.annotations,
        "labels": flags.labels,
        "score": flags.score,
        "halting_bias": flags.halting_bias,
        "num_proposals": flags.num_proposals,
        "proposal_threshold": flags.proposal_threshold,
    }
    claimed = resumable.claim(flags.output, settings, "detections")
    command_line.goes_on()
    photographs = _photographs(files, annotated)
    with claimed.records("records.jsonl") as records:
        failed = _detect(run, photographs, records, names, flags)
    done = [records[photo.key] for photo in photographs if photo.path not in failed]
    images = [record["image"] for record in done]
    entries = [
        coco.with_name(entry, names)
        for record in done
        for entry in record["detections"]
    ]
    claimed.write("images.json", images)
    claimed.write("detections.json", entries)
    result = {"images": images, "detections": entries, "failed": [*map(str, failed)]}
    return command_line.partly(result, len(files))


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    count = len(result["images"])
    return f"{flags.output}/: pictures of {count} images, detections.json."


@dataclass(frozen=True)
class _Photograph:
    """A file, and what is known of it before it is read.

    Attributes:
      path: of the file.
      name: that of the annotations, or its path below the folder that was given.
      id: that of the annotations, or one that nothing else has.
      size: height and width, if there are annotations of it.
      output: name of its picture, without ending.
    """

    path: pathlib.Path
    name: str
    id: int
    size: tuple[int, int] | None
    output: str

    @property
    def key(self) -> str:
        """Tells it from all others, in records."""
        return os.path.abspath(self.path)


def _annotations(file, files):
    """Names of categories, images of the annotations by path, and the highest id."""
    if not file:
        return {}, ({}, 0)
    content = coco_json.read(file, ("categories", "images"))
    images = coco.matched(file, content["images"], files)
    if len(images) < len(files):
        others = [name for path, name in files.items() if path not in images]
        tqdm.write(
            f"{len(others)} of {len(files)} images are not in {file} and get ids of "
            f"their own, for instance {others[0]}",
            sys.stderr,
        )
    highest = max((image["id"] for image in content["images"]), default=0)
    return coco_json.category_names(content), (images, max(highest, 0))


def _photographs(files, annotated):
    images, highest = annotated
    outputs = image_files.output_names(files)
    found = []
    for number, (path, name) in enumerate(files.items(), highest + 1):
        image = images.get(path)
        if image:
            name, number = image["file_name"], image["id"]
        size = (image["height"], image["width"]) if image else None
        output = f"{number:06d}_{outputs[path]}"
        found.append(_Photograph(path, name, number, size, output))
    return found


def _detect(run, photographs, records, names, flags):
    """Draws and records what has no record yet; gives paths that cannot be used."""
    failed = []
    for photo in tqdm(photographs, desc="detecting", unit="image"):
        picture = flags.output / f"{photo.output}.png"
        if photo.key in records and picture.exists():
            continue
        try:
            pixels = _read(photo)
        except (ValueError, OSError) as error:
            tqdm.write(f"skipped: {error}", sys.stderr)
            failed.append(photo.path)
            continue
        record = _detected(run, photo, pixels, picture, names, flags)
        records.add(photo.key, record)
    return failed


def _read(photo):
    pixels = image_files.read(photo.path, size=photo.size)
    if photo.size and pixels.shape[:2] != photo.size:
        there, said = pixels.shape[1::-1], photo.size[::-1]
        raise ValueError(
            f"{photo.path} has {there[0]} x {there[1]} pixels, but the annotations say "
            f"{said[0]} x {said[1]}"
        )
    return pixels


def _detected(run, photo, pixels, picture, names, flags):
    """Detects, draws the picture, and gives the record."""
    data = run.task.validation_data
    if isinstance(data, detection_configs.DetectionData):
        seen = preprocessing.detection(
            pixels, data.shorter_side, data.longer_side
        ).numpy()
    else:  # Digit scenes are taken as they are.
        seen = preprocessing.normalize(pixels, "imagenet").numpy()
    found = run.detector.detect(
        seen[np.newaxis],
        halting_bias=flags.halting_bias,
        num_proposals=flags.num_proposals,
        proposal_threshold=flags.proposal_threshold,
    )
    count = int(found["count"][0])
    detections = {
        name: found[name][0, :count].numpy() for name in ("boxes", "scores", "classes")
    }
    record = found["record"]
    head = record["head"]
    image = {
        "id": photo.id,
        "file_name": photo.name,
        "path": str(photo.path),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "picture": picture.name,
        "ponder_cost": float(record["ponder_cost"][0]),
        "flops": int(record["flops"][0]),
        "head_ponder_cost": float(head["ponder_cost"][0]),
        "head_flops": int(head["flops"][0]),
        "num_regions": int(head["num_regions"][0]),
    }
    scale = np.array(seen.shape[:2]) / pixels.shape[:2]
    original = {**detections, "boxes": detections["boxes"] / np.tile(scale, 2)}
    confident = detections["scores"] >= flags.score
    total = image["flops"] + image["head_flops"]
    figure = visualization.detections(
        [seen],
        [{name: values[confident] for name, values in detections.items()}],
        [record["ponder_cost_map"][0, ..., 0].numpy()],
        names,
        titles=[f"ponder cost {image['ponder_cost']:.2f}, {total:.3g} FLOPs"],
    )
    visualization.save(figure, picture)
    return {"image": image, "detections": coco.as_json([image], [original])}


COMMAND = command_line.Command(
    "detect", __doc__, add_flags, run, show, "print the detections as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
