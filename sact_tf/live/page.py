"""What the page asks for, as dicts that become JSON."""

import base64
import collections
import math
import threading

import matplotlib
import numpy as np

from sact_tf.live import measuring, photographs, sources

#: Halting biases that the slider goes to.
BIASES = (-4.0, 4.0)
_STEP = 0.1
_MAP = "ponder_cost_map"
_ALL = "all blocks"
#: The ponder cost of a position that stops after one unit: it, and a remainder of one
#: (eqn 11).
_LEAST_OF_BLOCK = 2.0
#: Photographs whose baseline's FLOPs are remembered.
_COUNTED = 256
#: Pixels of the longer side of a thumbnail.
_THUMBNAIL = 192


class Page:
    """A network and the photographs that it is shown; for many threads.

    The network answers one after the other: calls at the same time would share the
    cores, and the milliseconds would be of nothing.
    """

    def __init__(
        self,
        source: sources.Source,
        title: str,
        examples: dict[str, bytes],
        score: float = 0.5,
    ):
        """Makes a page.

        Args:
          source: where answers come from.
          title: what it is, in a few words.
          examples: image files by name, which can be read.
          score: detections of a lower score are not shown.
        """
        self._source, self._title, self._score = source, title, score
        self.examples = examples
        self.thumbnails = {
            name: _thumbnail(file, name) for name, file in examples.items()
        }
        self._photographs = photographs.Store()
        self._computing = threading.Lock()
        self._baseline_flops: collections.OrderedDict = collections.OrderedDict()

    def about(self) -> dict:
        """What the page is about; said once."""
        colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
        source = self._source
        return {
            "title": self._title,
            "halts": source.halts,
            "baseline": source.baseline,
            "clocked": source.clocked,
            "biases": {"least": BIASES[0], "most": BIASES[1], "step": _STEP},
            "most_bytes": photographs.MAX_BYTES,
            "examples": list(self.examples),
            "colours": colours.tolist(),
        }

    def add(self, encoded: bytes, name: str) -> dict:
        """Takes a photograph: its key, and the sides of the image.

        Raises:
          ValueError: it is none; the message says why.
        """
        photograph = photographs.read(encoded, name)
        self._photographs.add(photograph)
        height, width = photograph.pixels.shape[:2]
        return {"key": photograph.key, "height": height, "width": width}

    def photograph(self, key: str) -> photographs.Photograph:
        """One that was added.

        Raises:
          ValueError: it is no longer kept.
        """
        try:
            return self._photographs[key]
        except KeyError:
            raise ValueError("The image is no longer kept. Choose it again.") from None

    def answer(self, key: str, halting_bias: float) -> dict:
        """What is on a photograph, what that cost, and where.

        Args:
          key: of the photograph.
          halting_bias: added to every halting logit.

        Returns:
          classes (name, share) or boxes (name, score, box as shares of the sides, ymin,
          xmin, ymax, xmax); flops and ponder_cost; baseline_flops, None without a
          baseline; maps (name, sides, float32 in base64) with region, the part of the
          image that they show, and least, below which nothing can be.

        Raises:
          ValueError: the photograph is not kept, or the bias is no finite number.
          tf.errors.OpError, ServingError: it is refused.
        """
        halting_bias = _checked_bias(halting_bias)
        photograph = self.photograph(key)
        with self._computing:
            baseline_flops = self._flops_of_baseline(photograph)
            answer = self._source.explain(photograph, halting_bias)
        maps = _maps(answer)
        least = _LEAST_OF_BLOCK * (len(maps) - 1)
        return {
            **self._said(answer),
            "flops": sources.total_flops(answer),
            "baseline_flops": baseline_flops,
            "ponder_cost": float(answer["ponder_cost"]),
            "maps": [_packed(name, values) for name, values in maps.items()],
            "region": _floats(answer.get("map_region", (0.0, 0.0, 1.0, 1.0))),
            "least": least if self._source.halts else 0.0,
        }

    def times(self, key: str, halting_bias: float) -> dict:
        """Milliseconds of this, and of the baseline if there is one.

        Args, Raises: as for `answer`.
        """
        halting_bias = _checked_bias(halting_bias)
        photograph = self.photograph(key)
        with self._computing:
            passes = self._source.passes(photograph, halting_bias)
            seconds = measuring.medians(passes)
        return {name: 1000 * value for name, value in seconds.items()}

    def close(self) -> None:
        """Lets go of what the source holds."""
        self._source.close()

    def _flops_of_baseline(self, photograph):
        """They do not depend on the bias: once for each photograph."""
        if not self._source.baseline:
            return None
        known = self._baseline_flops
        if photograph.key not in known:
            known[photograph.key] = self._source.baseline_flops(photograph)
            if len(known) > _COUNTED:
                known.popitem(last=False)
        return known[photograph.key]

    def _said(self, answer):
        if "normalized_boxes" not in answer:
            shares = _floats(answer["probabilities"])
            pairs = zip(answer["names"], shares, strict=True)
            return {"classes": [{"name": name, "share": s} for name, s in pairs]}
        rows = zip(
            answer["names"],
            _floats(answer["scores"]),
            np.asarray(answer["classes"]).tolist(),
            np.asarray(answer["normalized_boxes"], float).tolist(),
            strict=True,
        )
        return {
            "boxes": [
                {"name": name, "score": score, "number": number, "box": box}
                for name, score, number, box in rows
                if score >= self._score
            ],
            "score": self._score,
        }


def _thumbnail(encoded, name):
    return photographs.reduced(photographs.read(encoded, name).pixels, _THUMBNAIL)


def _checked_bias(value):
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"halting_bias must be a finite number. Received: {value!r}")
    return float(value)


def _maps(answer):
    """Ponder cost maps by name, float32 [h, w], that of all blocks first."""
    blocks = {
        key.removesuffix(f"_{_MAP}"): np.asarray(value, np.float32)
        for key, value in sorted(answer.items())
        if key.startswith("block") and key.endswith(_MAP)
    }
    total = np.asarray(answer[_MAP], np.float32)
    # Pixels of the image, of which all at a position of the first block have one value.
    first = next(iter(blocks.values()))
    height, width = first.shape if first.ndim == 2 else (1, 1)
    rows = np.arange(height) * total.shape[0] // height
    columns = np.arange(width) * total.shape[1] // width
    whole = {_ALL: total[rows[:, np.newaxis], columns]}
    return {**whole, **{n: np.atleast_2d(values) for n, values in blocks.items()}}


def _packed(name, values):
    height, width = values.shape
    little = np.ascontiguousarray(values, "<f4").tobytes()
    return {
        "name": name,
        "height": height,
        "width": width,
        "values": base64.b64encode(little).decode(),
    }


def _floats(values):
    return np.asarray(values, float).tolist()
