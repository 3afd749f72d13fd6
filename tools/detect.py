r"""Detects objects in photographs, and shows where the detector computed (figure 10).

For every image a picture, the detections beside the ponder cost map of the feature
extractor; for all of them detections.json, in COCO's format of results, and
images.json, which says which image has which id, what it cost, and its size.

    python -m tools.detect --model runs/sact --output detections \
        --annotations instances_val2017.json photographs/ 'more/*.jpg'
"""

import json
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from sact_tf import folders, visualization
from sact_tf.data import coco, image_files, preprocessing
from sact_tf.model_garden import detection_configs, detectors
from tools import command_line


def main() -> None:
    """Parses the flags, detects, draws."""
    parser = command_line.parser("detect", __doc__)
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
        "--json", action="store_true", help="print the detections as JSON"
    )
    flags = parser.parse_args()
    paths = image_files.find(flags.images)
    names, ids = _annotations(flags.annotations)
    run = detectors.load(flags.model)
    settings = {
        "model": run.checkpoint,
        "images": [str(path.resolve()) for path in paths],
        "annotations": flags.annotations,
        "score": flags.score,
        "halting_bias": flags.halting_bias,
    }
    folders.claim(flags.output, "settings.json", settings, "detections")
    images, entries, failed = _detect(run, paths, names, ids, flags)
    folders.write_json(flags.output / "images.json", images)
    folders.write_json(flags.output / "detections.json", entries)
    if flags.json:
        print(
            json.dumps(
                {"images": images, "detections": entries, "failed": failed}, indent=1
            )
        )
    else:
        print(f"{flags.output}/: pictures of {len(images)} images, detections.json.")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(paths)} images could not be used, see above"
        )


def _annotations(path):
    """Names of categories, and ids of images by file name."""
    if not path:
        return {}, {}
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        ids = {image["file_name"]: int(image["id"]) for image in content["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no COCO JSON with categories and images. ({error})"
        ) from error
    return names, ids


def _detect(run, paths, names, ids, flags):
    data = run.task.validation_data
    if not isinstance(data, detection_configs.DetectionData):
        data = None  # Digit scenes are taken as they are.
    images, entries, failed = [], [], []
    fresh = max(ids.values(), default=0)
    for path in tqdm(paths, desc="detecting", unit="image"):
        try:
            pixels = image_files.read(path)
        except (ValueError, OSError) as error:
            tqdm.write(f"skipped: {error}", sys.stderr)
            failed.append(str(path))
            continue
        fresh += 1
        if data is None:
            seen = preprocessing.normalize(pixels, "imagenet").numpy()
        else:
            seen = preprocessing.detection(
                pixels, data.shorter_side, data.longer_side
            ).numpy()
        found = run.built.detector.detect(
            seen[np.newaxis], halting_bias=flags.halting_bias
        )
        count = int(found["count"][0])
        detections = {
            name: found[name][0, :count].numpy()
            for name in ("boxes", "scores", "classes")
        }
        record = found["record"]
        image = {
            "id": ids.get(path.name, fresh),
            "file_name": str(path),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "ponder_cost": float(record["ponder_cost"][0]),
            "flops": int(record["flops"][0]),
        }
        images.append(image)
        scale = np.array(seen.shape[:2]) / pixels.shape[:2]
        original = {**detections, "boxes": detections["boxes"] / np.tile(scale, 2)}
        entries += coco.as_json([image], [original])
        confident = detections["scores"] >= flags.score
        figure = visualization.detections(
            [seen],
            [{name: values[confident] for name, values in detections.items()}],
            [record["ponder_cost_map"][0, ..., 0].numpy()],
            names,
        )
        target = flags.output / f"{image['id']:06d}_{path.stem}.png"
        visualization.save(figure, target)
    return images, entries, failed


if __name__ == "__main__":
    command_line.run(main)
