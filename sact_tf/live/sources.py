"""Where answers come from: a network in this process, an export, or a server.

All of them give what the signature `explain` of sact_tf.serving gives.
"""

import abc
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sact_tf.live import photographs
from sact_tf.serving import answers, servable

#: A halting bias with which nothing stops before the last unit: scores are below 1e-30.
NEVER = -100.0

_REFUSED = "no halting scores"


class Source(abc.ABC):
    """Where answers come from.

    Attributes:
      halts: whether a halting bias changes anything.
      baseline: what it is compared with, in two words; empty for nothing.
      clocked: what its milliseconds are of.
    """

    halts: bool
    baseline: str
    clocked = "decoded image in, answer out, one at a time"

    @abc.abstractmethod
    def explain(
        self, photograph: photographs.Photograph, halting_bias: float
    ) -> dict[str, np.ndarray]:
        """What is on a photograph, what that cost, and where.

        Raises:
          ValueError, tf.errors.OpError, ServingError: it is refused.
        """

    @abc.abstractmethod
    def baseline_flops(self, photograph: photographs.Photograph) -> int:
        """What the baseline spends on it."""

    @abc.abstractmethod
    def passes(
        self, photograph: photographs.Photograph, halting_bias: float
    ) -> dict[str, Callable[[], object]]:
        """What is to be clocked: "this", and the "baseline" if there is one."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Lets go of what it holds."""


class Network(Source):
    """A network in this process."""

    def __init__(
        self,
        network: servable.ImageServable,
        halts: bool,
        plain: servable.ImageServable | None = None,
    ):
        """Takes a network as it would be served.

        Args:
          network: the network.
          halts: whether it has halting scores.
          plain: the same one without; None if it is plain itself.
        """
        self._network, self._plain = network, plain
        self.halts = halts
        self.baseline = "plain network" if plain else ""

    def explain(self, photograph, halting_bias):
        """See `Source`."""
        outputs = self._network.explain(
            tf.constant([photograph.encoded]), tf.constant(halting_bias, tf.float32)
        )
        return _first({key: value.numpy() for key, value in outputs.items()})

    def baseline_flops(self, photograph):
        """See `Source`."""
        outputs = self._plain.tensors(tf.constant(photograph.pixels[np.newaxis]))
        return total_flops(outputs)

    def passes(self, photograph, halting_bias):
        """See `Source`."""
        pixels = tf.constant(photograph.pixels[np.newaxis])
        bias = tf.constant(halting_bias, tf.float32)
        found = {"this": lambda: self._network.tensors(pixels, bias)["flops"].numpy()}
        if self._plain:
            found["baseline"] = lambda: self._plain.tensors(pixels)["flops"].numpy()
        return found


class _WithItself(Source):
    """A network that cannot be taken apart: compared with itself, never stopping."""

    def _find_out(self):
        """Whether it halts, by asking; whoever opens it learns what is wrong with it.

        Also, servers and functions are warm afterwards.
        """
        pixels = np.full([256, 256, 3], 127, np.uint8)
        probe = photographs.read(tf.io.encode_png(pixels).numpy(), "probe")
        self.explain(probe, 0.0)
        self.halts = True
        try:
            self.explain(probe, NEVER)
        except (RuntimeError, tf.errors.OpError) as error:
            if _REFUSED not in str(error):
                raise
            self.halts = False
        self.baseline = "never stopping" if self.halts else ""

    def baseline_flops(self, photograph):
        """See `Source`."""
        return total_flops(self._answer(photograph, NEVER))

    def passes(self, photograph, halting_bias):
        """See `Source`."""
        found = {"this": lambda: self._answer(photograph, halting_bias)}
        if self.halts:
            found["baseline"] = lambda: self._answer(photograph, NEVER)
        return found

    @abc.abstractmethod
    def _answer(self, photograph, halting_bias):
        """An answer without maps, as arrays with a first axis."""


class Export(_WithItself):
    """A SavedModel that `sact-tf export-saved-model` wrote."""

    def __init__(self, folder: pathlib.Path):
        """Loads it.

        Args:
          folder: with the saved_model.pb, or the one above, of which the highest
            version is taken.

        Raises:
          ValueError: it is another SavedModel.
        """
        folder = version_folder(folder)
        try:
            self._loaded = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{folder} is no SavedModel. ({reason})") from error
        signatures = self._loaded.signatures
        missing = [name for name in ("explain", "tensors") if name not in signatures]
        if missing:
            raise ValueError(
                f"{folder} is a SavedModel without the signature {missing[0]}, which "
                "those of sact-tf export-saved-model have. Received: "
                f"{', '.join(sorted(signatures)) or 'none'}"
            )
        self._find_out()

    def explain(self, photograph, halting_bias):
        """See `Source`."""
        outputs = self._loaded.signatures["explain"](
            images=tf.constant([photograph.encoded]),
            halting_bias=tf.constant(halting_bias, tf.float32),
        )
        return _first({key: value.numpy() for key, value in outputs.items()})

    def _answer(self, photograph, halting_bias):
        outputs = self._loaded.signatures["tensors"](
            images=tf.constant(photograph.pixels[np.newaxis]),
            halting_bias=tf.constant(halting_bias, tf.float32),
        )
        return {key: value.numpy() for key, value in outputs.items()}


class Server(_WithItself):
    """A model of a TensorFlow Serving."""

    clocked = "the file sent, the answer received, one at a time"

    def __init__(self, address: str, model: str):
        """Asks the server once.

        Args:
          address: http://host:port for REST, grpc://host:port for gRPC.
          model: its name on the server.

        Raises:
          ValueError: it is no such address, or the client's packages are missing.
          ServingError: the server is not there, or has no such model.
        """
        try:
            from sact_tf.serving import client
        except ImportError as error:
            raise ValueError(
                f"To ask {address}, the packages of a client are needed: pip install "
                f"'sact_tf[live]'. ({error})"
            ) from error
        scheme, _, place = address.partition("://")
        protocols = {"http": "rest", "grpc": "grpc"}
        if scheme not in protocols:
            raise ValueError(
                "The address of a server begins with http:// (REST) or grpc://. "
                f"Received: {address}"
            )
        self._client = client.Client(
            place.rstrip("/"), model, protocol=protocols[scheme], timeout=60.0
        )
        self._find_out()

    def explain(self, photograph, halting_bias):
        """See `Source`."""
        return _first(self._ask("explain", photograph, halting_bias))

    def _answer(self, photograph, halting_bias):
        return self._ask("serving_default", photograph, halting_bias)

    def _ask(self, signature, photograph, halting_bias):
        inputs = {"images": [photograph.encoded], "halting_bias": halting_bias}
        return self._client.predict(signature, inputs)

    def close(self):
        """Closes the connection."""
        self._client.close()


def is_address(path: str) -> bool:
    """Whether a model is said to be on a server."""
    return "://" in path


def version_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the SavedModel itself: that of the highest version below, or it."""
    if (folder / "saved_model.pb").exists() or not folder.is_dir():
        return folder
    numbers = [path for path in folder.iterdir() if path.name.isdecimal()]
    found = [path for path in numbers if (path / "saved_model.pb").exists()]
    return max(found, key=lambda path: int(path.name), default=folder)


def plain(model):
    """A network or detector without halting, sampling and masks, with its weights.

    Args:
      model: a `ResNet` or a `FasterRCNN`.
    """
    config = model.get_config()
    nothing = {"adaptivity": "none", "tile_size": 1}
    nothing |= dict.fromkeys(("sampling", "sampling_sizes", "masks"))
    network = config.get("backbone", config)
    network |= {key: value for key, value in nothing.items() if key in network}
    if "backbone" in config:  # A detector, whose heads may halt, too.
        config |= {"head_adaptivity": "none", "head_tau": 0.0}
    twin = type(model).from_config({**config, "name": None})
    # Paths in checkpoints are those of attributes, which both have.
    with tempfile.TemporaryDirectory(prefix="sact_tf-") as folder:
        written = tf.train.Checkpoint(model=model).write(f"{folder}/weights")
        status = tf.train.Checkpoint(model=twin).read(written)
        status.expect_partial().assert_existing_objects_matched()
    return twin


def total_flops(answer: dict) -> int:
    """Of the network, and of a detector's region heads.

    Args:
      answer: one of a single image, or of a batch of one.
    """
    costs = [answer[key] for key in ("flops", "head_flops") if key in answer]
    return int(sum(np.asarray(cost).reshape([]) for cost in costs))


def _first(outputs):
    """The answer for the only image of a batch; texts as str."""
    (answer,) = answers.per_image(outputs)
    if "names" in answer:
        answer["names"] = [
            name.decode() if isinstance(name, bytes) else str(name)
            for name in answer["names"]
        ]
    return answer
