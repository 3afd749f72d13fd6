"""How fast saliency maps are scored, and where the time goes.

Measures the processor time of every part of the metrics on a random map of one image,
and then how many images per second the threads score together by the clock; reading
files and running the network come on top.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sact_tf.cli import command_line, evaluate_saliency
from sact_tf.evaluation import saliency

ROUNDS = 5


def main() -> None:
    """Parses the flags, measures and prints."""
    parser = command_line.parser("benchmark_saliency", __doc__)
    parser.add_argument(
        "--size", default="1920x1080", help="of images (default: %(default)s)"
    )
    parser.add_argument(
        "--map-size",
        default="320x180",
        help="of ponder cost maps (default: %(default)s)",
    )
    parser.add_argument(
        "--fixations", type=int, default=350, help="of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="threads (default: one for each processor)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()
    size, map_size = map(evaluate_saliency.parse_size, (flags.size, flags.map_size))
    if not 1 <= flags.fixations < size[0] * size[1] or flags.workers < 1:
        raise ValueError(
            "--fixations and --workers must be at least 1, and the image larger than "
            f"its fixations are many. Received: {flags.fixations} and {flags.workers}"
        )
    result = measure(size, map_size, flags.fixations, flags.workers)
    if flags.json:
        print(json.dumps(result, indent=1))
        return
    for part, milliseconds in result["milliseconds"].items():
        print(f"{part:<42}{milliseconds:8.1f} ms")
    for part, speed in result["images_per_second"].items():
        print(f"{part + f', {flags.workers} threads':<42}{speed:8.2f} images/s")


def measure(size, map_size, num_fixations: int, workers: int) -> dict:
    """Processor milliseconds of every part, images per second of the two halves."""
    rng = np.random.default_rng(0)
    width, height = size
    costs = rng.random(map_size[::-1])
    fixations = np.zeros([height, width], bool)
    fixations.flat[rng.choice(fixations.size, num_fixations, replace=False)] = True
    heat = saliency.heat_map(fixations)
    center = saliency.center_map(height, width)
    small = saliency.postprocess(costs, 10, 0.1)
    large = saliency.resize(small, height, width)
    sigmas, gammas = evaluate_saliency.SIGMAS, evaluate_saliency.GAMMAS

    def tune():
        return saliency.grid_search(costs, fixations, sigmas, gammas)

    def validate():
        human = saliency.heat_map(fixations)
        return saliency.all_scores(small, fixations, human, center)

    parts = {
        f"tuning an image ({len(sigmas)} x {len(gammas)} pairs)": tune,
        "scoring a map, with its heat map": validate,
        "  blur, s = 10": lambda: saliency.blur(costs, 10),
        "  rescaling": lambda: saliency.resize(small, height, width),
        "  heat map": lambda: saliency.heat_map(fixations),
        "  AUC-Judd": lambda: saliency.auc_judd(large, fixations),
        "  AUC-Judd, no jitter": lambda: saliency.auc_judd(large, fixations, False),
        "  AUC-Borji": lambda: saliency.auc_borji(large, fixations),
        "  NSS": lambda: saliency.nss(large, fixations),
        "  CC": lambda: saliency.cc(large, heat),
        "  SIM": lambda: saliency.sim(large, heat),
        "  KL": lambda: saliency.kl_divergence(large, heat),
        "  IG": lambda: saliency.information_gain(large, fixations, center),
    }
    speeds = {
        "tuning": _images_per_second(tune, workers, 2 * workers),
        "scoring": _images_per_second(validate, workers, 8 * workers),
    }
    milliseconds = {name: _milliseconds(part) for name, part in parts.items()}
    return {"milliseconds": milliseconds, "images_per_second": speeds}


def _milliseconds(function):
    # Processor time: others may be busy on the machine, too.
    return 1000 * min(_seconds(function, time.process_time) for _ in range(ROUNDS))


def _images_per_second(function, workers, count):
    def score_all():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _: function(), range(count)))

    return count / _seconds(score_all, time.perf_counter)


def _seconds(function, clock):
    began = clock()
    function()
    return clock() - began


if __name__ == "__main__":
    command_line.run(main)
