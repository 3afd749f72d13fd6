"""What signatures answer, taken apart; without the packages that a client needs."""

from collections.abc import Mapping

import numpy as np

_DETECTIONS = ("boxes", "normalized_boxes", "classes", "names", "scores")


def per_image(answer: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """An answer image by image: what only fills up the arrays of a batch is cut off.

    These are detections beyond `num_detections`, and maps beyond their images: no
    position costs nothing, so there the ponder cost is zero.
    """
    images = []
    for index in range(len(answer["flops"])):
        values = {key: value[index] for key, value in answer.items()}
        for key, value in values.items():
            if key in _DETECTIONS and "num_detections" in values:
                values[key] = value[: values["num_detections"]]
            elif key.endswith("ponder_cost_map") and value.ndim:
                height, width = (np.count_nonzero(v) for v in (value[:, 0], value[0]))
                values[key] = value[:height, :width]
        images.append(values)
    return images
