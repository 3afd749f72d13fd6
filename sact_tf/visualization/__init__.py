"""Pictures of where computation went, and of what it bought.

Widths are such that letters can be read where a picture is as wide as a phone.
"""

from sact_tf.visualization.curves import (
    accuracy_against_flops,
    accuracy_against_image_size,
    accuracy_against_time,
    speed_up_against_flops,
    training_curves,
)
from sact_tf.visualization.detections import detections
from sact_tf.visualization.figures import (
    displayable,
    new_figure,
    opaque,
    save,
    scale_of,
    show_image,
    show_map,
    to_array,
)
from sact_tf.visualization.maps import (
    ponder_cost_maps,
    ponder_cost_overview,
    ponder_cost_ranges,
)
from sact_tf.visualization.saliency import grid_search_surface, saliency_maps

__all__ = [
    "accuracy_against_flops",
    "accuracy_against_image_size",
    "accuracy_against_time",
    "detections",
    "displayable",
    "grid_search_surface",
    "new_figure",
    "opaque",
    "ponder_cost_maps",
    "ponder_cost_overview",
    "ponder_cost_ranges",
    "saliency_maps",
    "save",
    "scale_of",
    "show_image",
    "show_map",
    "speed_up_against_flops",
    "to_array",
    "training_curves",
]
