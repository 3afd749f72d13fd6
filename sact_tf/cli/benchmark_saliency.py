"""How fast saliency maps are scored, and where the time goes.

Measures the processor time of every part of the metrics on a random map of one image,
and then how many images per second the threads score together by the clock; reading
files and running the network come on top.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sact_tf.cli import command_line, evaluate_saliency
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import saliency

ROUNDS = 5


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--box",
        default="1920x1080",
        metavar="WxH",
        help="of images (default: %(default)s)",
    )
    parser.add_argument(
        "--map_box",
        default="320x180",
        metavar="WxH",
        help="of ponder cost maps (default: %(default)s)",
    )
    parser.add_argument(
        "--fixations", type=int, default=350, help="of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="default: one for each processor",
    )
    parser.renamed(size="box", map_size="map_box", workers="threads")


def run(flags: argparse.Namespace) -> dict:
    """Measures."""
    size, map_size = map(evaluate_saliency.parse_size, (flags.box, flags.map_box))
    if not 1 <= flags.fixations < size[0] * size[1] or flags.threads < 1:
        raise ValueError(
            "--fixations and --threads must be at least 1, and the image larger than "
            f"its fixations are many. Received: {flags.fixations} and {flags.threads}"
        )
    return measure(size, map_size, flags.fixations, flags.threads)


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    lines = [
        f"{part:<42}{milliseconds:8.1f} ms"
        for part, milliseconds in result["milliseconds"].items()
    ]
    lines += [
        f"{part + f', {flags.threads} threads':<42}{speed:8.2f} images/s"
        for part, speed in result["images_per_second"].items()
    ]
    return "\n".join(lines)


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


COMMAND = command_line.Command("benchmark_saliency", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
