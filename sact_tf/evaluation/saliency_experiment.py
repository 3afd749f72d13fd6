"""Section 4.3 as a run that streams over a data set and can be killed at any time.

Every image passes through a network once. Images of the tuning half give the AUC-Judd
of the whole grid of s and gamma; the best pair, and what it is compared with, is then
scored on the validation half. What an image gave is one line of a file at once, so the
same call goes on where it was stopped. Images, maps and fixations are held for a few
images at a time, however many there are.
"""

import collections
import hashlib
import math
import pathlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from sact_tf import resumable
from sact_tf.data import cat2000, image_files
from sact_tf.evaluation import report, saliency


@dataclass(frozen=True)
class Row:
    """One row of table 2.

    Attributes:
      name: of the map that was scored.
      scores: means over images of `saliency.METRICS`, shares and bits.
      auc_judd_error: standard error of the mean AUC-Judd.
      gain, gain_error: mean difference of its AUC-Judd from the centre map's, image by
        image, and the standard error of that.
      num_images: how many images of the validation half count.
      sigma, gamma: of the post-processing; None where there is none.
    """

    name: str
    scores: dict[str, float]
    auc_judd_error: float
    gain: float
    gain_error: float
    num_images: int
    sigma: float | None = None
    gamma: float | None = None

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """What the experiment says about one network.

    Attributes:
      rows: with tuned s and gamma; without the centre map (s tuned for itself); with
        the s and gamma of the paper.
      sigmas, gammas: the grid.
      surface: float64 [S, G], mean AUC-Judd of the tuning half.
    """

    rows: list[Row]
    sigmas: tuple[float, ...]
    gammas: tuple[float, ...]
    surface: np.ndarray

    @property
    def at_edge(self) -> bool:
        """Whether the best pair is the largest s or gamma: the grid is too small."""
        row = self.rows[0]
        return row.sigma == self.sigmas[-1] or row.gamma == self.gammas[-1]


class Experiment:
    """Networks and baselines on one data set.

    Use it as a context manager: it has worker threads (NumPy, SciPy and Pillow let go
    of Python's lock while they work).
    """

    def __init__(
        self,
        examples: Sequence[cat2000.Example],
        directory,
        *,
        sigmas: Sequence[float],
        gammas: Sequence[float],
        batch_size: int = 8,
        workers: int = 2,
    ):
        """Prepares a run.

        Args:
          examples: of both halves, see `cat2000.find`.
          directory: folder of the results, one folder in it for every network.
          sigmas: values of s to try, in pixels of what the network sees.
          gammas: values of gamma to try; 0 is always tried.
          batch_size: images that pass through a network together.
          workers: number of threads.

        Raises:
          ValueError: a half is empty, or the grid is empty or has negative values.
        """
        self._halves = {
            half: [example for example in examples if example.half == half]
            for half in (cat2000.TUNE, cat2000.VALIDATION)
        }
        for half, members in self._halves.items():
            if not members:
                raise ValueError(
                    f"There are no images in the {half} half. Every category's first "
                    f"half is for tuning, so one must have two. Received: "
                    f"{len(examples)} images"
                )
        for name, grid in (("sigmas", sigmas), ("gammas", gammas)):
            if not grid or not all(0 <= value < math.inf for value in grid):
                raise ValueError(
                    f"{name} must be numbers of zero or more. Received: {list(grid)}"
                )
        self._sigmas = tuple(sorted({float(sigma) for sigma in sigmas}))
        self._gammas = tuple(sorted({0.0, *map(float, gammas)}))
        self._directory = pathlib.Path(directory)
        self._batch_size = batch_size
        self._workers = workers
        self._data = hashlib.sha256(
            "\n".join(str(example.stimulus.resolve()) for example in examples).encode()
        ).hexdigest()

    def __enter__(self):
        self._pool = ThreadPoolExecutor(self._workers)
        return self

    def __exit__(self, *error):
        self._pool.shutdown(cancel_futures=True)

    def folder(self, name: str) -> pathlib.Path:
        """The folder of a network's results."""
        return self._directory / image_files.short_name(name)

    def baselines(self) -> list[Row]:
        """The centre map and, if observers were exported, one human being."""
        names, scores = self._baseline_scores()
        return [_row(name, scores, i, scores) for i, name in enumerate(names)]

    def network(
        self, name: str, model, size: tuple[int, int], settings: dict
    ) -> Result:
        """Tunes the post-processing of a network's ponder cost maps and scores them.

        Args:
          name: of the rows, and of the folder of results.
          model: anything with `introspect(images)` that gives `ponder_cost_map`.
          size: (width, height) of the box that images are scaled to.
          settings: what tells this network from others, for JSON: results of other
            settings are not continued.

        Raises:
          ValueError: the folder holds other results, or a file cannot be read.
        """
        settings = {**settings, "size": list(size)}
        settings["sigmas"], settings["gammas"] = self._sigmas, self._gammas
        tune, validate = (
            self._halves[half] for half in (cat2000.TUNE, cat2000.VALIDATION)
        )

        def maps(items):
            return ponder_cost_maps(model, items, self._batch_size)

        def search(loaded):
            return saliency.grid_search(
                loaded.ponder_cost_map, loaded.fixations, self._sigmas, self._gammas
            ).tolist()

        records = self._records(name, settings, "tune")
        self._collect(records, tune, search, f"{name}, tuning", maps, size)
        surface = np.mean(_results(records, tune), axis=0)
        pairs = self._pairs(surface)

        def score(loaded):
            fixations = loaded.fixations
            heat = saliency.heat_map(fixations)
            center = saliency.center_map(*fixations.shape)
            return [
                saliency.all_scores(
                    saliency.postprocess(loaded.ponder_cost_map, sigma, gamma),
                    fixations,
                    heat,
                    center,
                )
                for sigma, gamma in pairs
            ]

        records = self._records(name, settings, "validation")
        self._collect(records, validate, score, f"{name}, validation", maps, size)
        scores = _results(records, validate)
        kinds = ("tuned", "no centre map", "the paper's s and gamma")
        _, baselines = self._baseline_scores()
        rows = [
            _row(f"{name}, {kind}", scores, i, baselines, *pair)
            for i, (kind, pair) in enumerate(zip(kinds, pairs, strict=True))
        ]
        return Result(rows, self._sigmas, self._gammas, surface)

    def shown(self, model, size: tuple[int, int], count: int) -> list["Loaded"]:
        """Images of the validation half, spread over it, with their maps."""
        examples = self._halves[cat2000.VALIDATION]
        places = np.linspace(0, len(examples) - 1, min(count, len(examples)))
        chosen = [examples[int(place)] for place in places]
        items = self._in_order(lambda example: load(example, size), chosen)
        return list(ponder_cost_maps(model, items, self._batch_size))

    def _baseline_scores(self):
        """Names of the baselines, and for every image the scores of each."""
        examples = self._halves[cat2000.VALIDATION]
        with_observers = all(len(example.observers) > 1 for example in examples)
        names = ["centre map", *(["one human"] if with_observers else [])]

        def score(loaded):
            fixations = loaded.fixations
            center = saliency.center_map(*fixations.shape)
            heat = saliency.heat_map(fixations)
            scores = [saliency.all_scores(center, fixations, heat, center)]
            if with_observers:
                observers = [
                    cat2000.read_fixation_map(path, fixations.shape[::-1])
                    for path in loaded.example.observers
                ]
                scores.append(saliency.one_human_scores(observers, center))
            return scores

        records = self._records("baselines", {"rows": names}, "validation")
        self._collect(
            records, examples, score, "baselines", lambda items: items, size=None
        )
        return names, _results(records, examples)

    def _pairs(self, surface):
        """(s, gamma) of the three rows of a network."""
        best = np.unravel_index(surface.argmax(), surface.shape)
        alone = surface[:, self._gammas.index(0.0)].argmax()
        return (
            (self._sigmas[best[0]], self._gammas[best[1]]),
            (self._sigmas[alone], 0.0),
            (saliency.PAPER_SIGMA, saliency.PAPER_GAMMA),
        )

    def _records(self, name, settings, half):
        settings = {"data": self._data, **settings}
        run = resumable.claim(self.folder(name), settings, "saliency results")
        return run.records(f"{half}.jsonl")

    def _collect(self, records, examples, score, title, with_maps, size):
        """Scores the images that have no record yet, and records them in order."""
        todo = [example for example in examples if example.name not in records]
        if not todo:
            return

        def scored(loaded):
            some = loaded.fixations.any() and not loaded.fixations.all()
            return score(loaded) if some else None

        items = self._in_order(lambda example: load(example, size), todo)
        results = self._in_order(
            lambda loaded: (loaded.example.name, scored(loaded)), with_maps(items)
        )
        progress = tqdm(
            results,
            desc=title,
            total=len(examples),
            initial=len(examples) - len(todo),
            unit="image",
        )
        with progress, records:
            for name, result in progress:
                records.add(name, result)

    def _in_order(self, function, items):
        """Results of a function in the order of the items, a few in advance."""
        waiting = collections.deque()
        for item in items:
            waiting.append(self._pool.submit(function, item))
            if len(waiting) > self._workers + self._batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class Loaded:
    """An image in memory.

    Attributes:
      example: where it came from.
      fixations: bool [H, W].
      image: float32 [h, w, 3], as the network sees it; None if no network does.
      ponder_cost_map: float32 [h, w], once a network has seen the image.
    """

    example: cat2000.Example
    fixations: np.ndarray
    image: np.ndarray | None
    ponder_cost_map: np.ndarray | None = None


def load(example: cat2000.Example, size: tuple[int, int] | None) -> Loaded:
    """Reads an image and its fixations; with no size, only the fixations."""
    image, fixations = cat2000.read(example)
    scaled = None if size is None else cat2000.for_network(image, size)
    return Loaded(example, fixations, scaled)


def ponder_cost_maps(
    model, items: Iterable[Loaded], batch_size: int
) -> Iterable[Loaded]:
    """Passes images through a network; those of a batch have the same size."""
    batch = []
    for item in items:
        if batch and (
            len(batch) == batch_size or batch[0].image.shape != item.image.shape
        ):
            yield from _introspected(model, batch)
            batch = []
        batch.append(item)
    if batch:
        yield from _introspected(model, batch)


def _introspected(model, batch):
    record = model.introspect(np.stack([item.image for item in batch]))
    maps = np.asarray(record["ponder_cost_map"])[..., 0]
    for item, ponder_cost_map in zip(batch, maps, strict=True):
        item.ponder_cost_map = ponder_cost_map
        yield item


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    header = ["saliency map", "s", "γ", "AUC-Judd, %", "over centre", "AUC-Borji, %"]
    header += ["NSS", "CC", "SIM", "KL", "IG, bits"]
    lines = [header]
    for row in rows:
        scores = row.scores
        cells = [row.name]
        cells += ["" if v is None else f"{v:g}" for v in (row.sigma, row.gamma)]
        cells.append(f"{100 * scores['auc_judd']:.2f} ± {100 * row.auc_judd_error:.2f}")
        cells.append(f"{100 * row.gain:+.2f} ± {100 * row.gain_error:.2f}")
        cells.append(f"{100 * scores['auc_borji']:.2f}")
        cells += [f"{scores[name]:.3f}" for name in saliency.METRICS[2:]]
        lines.append(cells)
    return report.pipe_table(lines)


def _row(name, scores, index, baselines, sigma=None, gamma=None):
    """A row from one of the maps scored for every image; the centre map is first."""
    scores = [several[index] for several in scores]
    judd = np.array([score["auc_judd"] for score in scores])
    center = np.array([several[0]["auc_judd"] for several in baselines])
    # One human predicts nothing where nobody else looked.
    defined = np.isfinite(judd)
    if not defined.any():
        raise ValueError(f"{name}: the AUC-Judd is undefined for every image")
    scores = [score for score, there in zip(scores, defined, strict=True) if there]
    judd, center = judd[defined], center[defined]
    return Row(
        name=name,
        scores={
            metric: float(np.mean([score[metric] for score in scores]))
            for metric in saliency.METRICS
        },
        auc_judd_error=_standard_error(judd),
        gain=float(np.mean(judd - center)),
        gain_error=_standard_error(judd - center),
        num_images=len(scores),
        sigma=sigma,
        gamma=gamma,
    )


def _standard_error(values):
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _results(records, examples):
    """The results of images that have any: that somebody looked at."""
    values = [records[example.name] for example in examples]
    values = [value for value in values if value is not None]
    if not values:
        raise ValueError(
            f"None of {len(examples)} images has a fixation: nothing to evaluate"
        )
    return values
