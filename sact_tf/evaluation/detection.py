"""What a detector reaches and what it costs, as the paper's table 1 has it."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pycocotools import coco as pycoco
from pycocotools import cocoeval

from sact_tf.data import coco
from sact_tf.detection import costs
from sact_tf.detection.faster_rcnn import FasterRCNN

#: COCO's twelve, in the order of pycocotools.
METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)


@dataclass(frozen=True)
class Row:
    """A row of table 1.

    Attributes:
      name: of the detector.
      metrics: COCO's twelve by name; -1 where there is nothing to measure.
      flops, flops_std: of the feature extractor, mean and standard deviation over
        images.
      share, share_std: the same, relative to a plain feature extractor on the same
        image.
      reference_flops: of that one, mean over images.
      ponder_cost: of the feature extractor, mean over images.
      num_images: how many images were evaluated.
      seconds: per image, by kind of execution; empty where it was not measured.
      head_flops, head_flops_std: of the region heads, mean and standard deviation over
        images.
      head_ponder_cost: of the region heads, mean over the regions of an image, and over
        images.
      num_regions: that the region heads have computed, mean over images.

    What an evaluation that an earlier version began has not counted is None.
    """

    name: str
    metrics: dict[str, float]
    flops: float
    flops_std: float
    share: float
    share_std: float
    reference_flops: float
    ponder_cost: float
    num_images: int
    seconds: dict[str, float]
    head_flops: float | None = None
    head_flops_std: float | None = None
    head_ponder_cost: float | None = None
    num_regions: float | None = None

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


class Evaluation:
    """Detections, objects and costs, image by image; can be put aside and taken up."""

    def __init__(self, state: dict | None = None):
        """Begins an evaluation, or takes one up.

        Args:
          state: what `state` gave.
        """
        names = ("images", "objects", "detections", "costs")
        self._state = {name: list((state or {}).get(name, ())) for name in names}

    @property
    def num_images(self) -> int:
        """How many images have been counted."""
        return len(self._state["images"])

    def state(self) -> dict:
        """Everything there is to know, for JSON."""
        return {name: list(entries) for name, entries in self._state.items()}

    def detect(
        self,
        detector: FasterRCNN,
        images,
        labels: dict,
        *,
        reference_units: Sequence[int],
        halting_bias: float = 0.0,
        num_proposals: int | None = None,
        proposal_threshold: float | None = None,
    ) -> dict:
        """Detects objects in an image, and counts it.

        Args:
          detector: the detector.
          images: float [1, H, W, 3].
          labels: as sact_tf.model_garden.detection_inputs has them.
          reference_units: residual units of the plain feature extractor to compare
            with.
          halting_bias: see `FasterRCNN.call`.
          num_proposals: see `FasterRCNN.call`.
          proposal_threshold: see `FasterRCNN.call`.

        Returns:
          What `FasterRCNN.detect` gave.
        """
        shapes = labels["image_shapes"]
        found = detector.detect(
            images, shapes, halting_bias, num_proposals, proposal_threshold
        )
        reference = costs.plain_flops(detector.extractor, shapes, reference_units)
        self.add(
            {key: value[0].numpy() for key, value in labels["groundtruths"].items()},
            found,
            scale=labels["image_info"][0, 2].numpy(),
            reference_flops=int(reference[0]),
        )
        return found

    def add(self, truth: dict, found: dict, *, scale, reference_flops: int) -> None:
        """Counts one image.

        Args:
          truth: source_id, height, width, num_detections, boxes, classes, areas and
            is_crowds, in pixels of the original image (see
            sact_tf.model_garden.detection_inputs), without batch.
          found: what `FasterRCNN.detect` gave for it alone.
          scale: [y, x], size of what the detector saw relative to the original.
          reference_flops: of a plain feature extractor.
        """
        image = {
            "id": int(truth["source_id"]),
            "height": int(truth["height"]),
            "width": int(truth["width"]),
        }
        self._state["images"].append(image)
        for index in range(int(truth["num_detections"])):
            ymin, xmin, ymax, xmax = (float(side) for side in truth["boxes"][index])
            self._state["objects"].append(
                {
                    "image_id": image["id"],
                    "category_id": int(truth["classes"][index]),
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "area": float(truth["areas"][index]),
                    "iscrowd": int(truth["is_crowds"][index]),
                }
            )
        count = int(found["count"][0])
        detections = {
            name: np.asarray(found[name][0])[:count]
            for name in ("boxes", "scores", "classes")
        }
        detections["boxes"] = detections["boxes"] / np.tile(np.asarray(scale), 2)
        self._state["detections"] += coco.as_json([image], [detections])
        record = found["record"]
        flops, head = int(record["flops"][0]), record["head"]
        self._state["costs"].append(
            {
                "flops": flops,
                "share": flops / int(reference_flops),
                "reference_flops": int(reference_flops),
                "ponder_cost": float(record["ponder_cost"][0]),
                "head_flops": int(head["flops"][0]),
                "head_ponder_cost": float(head["ponder_cost"][0]),
                "num_regions": int(head["num_regions"][0]),
            }
        )

    def row(self, name: str, seconds: dict[str, float] | None = None) -> Row:
        """The row of what has been counted.

        Raises:
          ValueError: nothing has been counted.
        """
        if not self.num_images:
            raise ValueError("There are no images to evaluate: the data set is empty.")
        counted = self._state["costs"]
        keys = ("flops", "share", "reference_flops", "ponder_cost")
        of_head = ("head_flops", "head_ponder_cost", "num_regions")
        spent = {
            key: np.array([cost[key] for cost in counted], np.float64)
            for key in (*keys, *of_head)
            if all(key in cost for cost in counted)
        }
        head = {key: spent[key].mean() for key in of_head if key in spent}
        if head:
            head["head_flops_std"] = spent["head_flops"].std()
        return Row(
            name=name,
            metrics=coco_metrics(
                self._state["images"], self._state["objects"], self._state["detections"]
            ),
            flops=spent["flops"].mean(),
            flops_std=spent["flops"].std(),
            share=spent["share"].mean(),
            share_std=spent["share"].std(),
            reference_flops=spent["reference_flops"].mean(),
            ponder_cost=spent["ponder_cost"].mean(),
            num_images=self.num_images,
            seconds=seconds or {},
            **head,
        )


def coco_metrics(
    images: Sequence[dict], objects: Sequence[dict], detections: Sequence[dict]
) -> dict[str, float]:
    """COCO's twelve metrics, by pycocotools.

    Args:
      images: dicts with id, height and width.
      objects: dicts with image_id, category_id, bbox, area and iscrowd.
      detections: dicts with image_id, category_id, bbox and score; there may be none.

    Returns:
      The metrics by name; -1 where there is no object.
    """
    categories = [
        {"id": i} for i in sorted({entry["category_id"] for entry in objects})
    ]

    def indexed(entries):
        index = pycoco.COCO()
        index.dataset = {
            "images": list(images),
            "categories": categories,
            "annotations": [
                {"iscrowd": 0, **entry, "id": number + 1}
                for number, entry in enumerate(entries)
            ],
        }
        index.createIndex()
        return index

    boxes = [
        {**entry, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in detections
    ]
    # pycocotools talks to standard output, which may be for machines.
    with contextlib.redirect_stdout(sys.stderr):
        evaluation = cocoeval.COCOeval(indexed(objects), indexed(boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(value)
        for name, value in zip(METRICS, evaluation.stats, strict=True)
    }


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: the paper's columns, the heads', AP50 and times."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.seconds))
    names = ("feature extractor", "FLOPs", "FLOPs (%)", "FLOPs of the heads")
    names = (*names, "mAP @ [.5, .95] (%)", "AP50 (%)")
    table = [[*names, *(f"s per image, {kind}" for kind in kinds)]]
    for row in rows:
        head = ""
        if row.head_flops is not None:
            head = f"{row.head_flops:.4g} ± {row.head_flops_std:.2g}"
        table.append(
            [
                row.name,
                f"{row.flops:.4g} ± {row.flops_std:.2g}",
                f"{100 * row.share:.1f} ± {100 * row.share_std:.1f}",
                head,
                f"{100 * row.metrics['AP']:.2f}",
                f"{100 * row.metrics['AP50']:.2f}",
                *(f"{row.seconds[k]:.3f}" if k in row.seconds else "" for k in kinds),
            ]
        )
    table.insert(1, ["---"] * len(table[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in table)
