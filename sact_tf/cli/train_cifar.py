r"""CIFAR-10 as the authors trained it, on a machine with TensorFlow and nothing else.

The schedule of `sact-tf train --experiment=sact_resnet_cifar10`: 100,000 updates of 128
images, momentum 0.9, a rate of 0.1 that is divided by ten after 60, 75 and 90 % of
them. The training set is in the device's memory, images are augmented there, and XLA
compiles the update; many follow one another in one call. Started again after it was
killed, it goes on.

    sact-tf train-cifar --data_dir cifar-10-batches-bin --output runs/cifar
    sact-tf train-cifar --data_dir tfds --output runs/second \
        --initialize_from runs/plain/network.keras

`--output` then holds network.keras, log.jsonl (a line after every `--evaluate_every`
updates), results.json, and what the run needs to go on. Neither the Model Garden nor
TFDS is needed.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras
from tqdm import tqdm

from sact_tf import folders, resumable, training
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser, add_units
from sact_tf.data import augmentation, cifar10, preprocessing
from sact_tf.device_data import DeviceData
from sact_tf.evaluation import report
from sact_tf.models.resnet import ResNet

_ADAPTIVITIES = ("none", "act", "sact")
_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
#: When the rate is divided by ten, in shares of all updates.
_DROPS = (0.6, 0.75, 0.9)
_EVALUATED = 500  # images at once
#: Flags that change no numbers, or may change from call to call.
_FREE = ("data_dir", "output", "backup_every", "json")


def run(flags: argparse.Namespace) -> dict:
    """Trains, and evaluates in the end."""
    _check(flags)
    settings = {k: v for k, v in vars(flags).items() if k not in _FREE}
    images = {split: cifar10.load(flags.data_dir, split) for split in cifar10.SPLITS}
    settings["images"] = [len(labels) for _, labels in images.values()]
    if flags.batch_size > settings["images"][0]:
        raise ValueError(
            f"--batch_size must be at most the number of images, "
            f"{settings['images'][0]}. Received: {flags.batch_size}"
        )
    model = _network(flags)
    claimed = resumable.claim(flags.output, settings, "a training of train_cifar")
    command_line.goes_on()
    data = DeviceData(
        *images["train"],
        batch_size=flags.batch_size,
        augment=augmentation.cifar_batch,
        seed=flags.seed,
    )
    test = _test_set(*images["test"])
    with (
        claimed.records("log.jsonl", key="step", value="logs") as log,
        _Progress(model, log, flags) as progress,
    ):
        training.fit(
            model,
            data.from_step,
            epochs=flags.steps // flags.evaluate_every,
            steps_per_epoch=flags.evaluate_every,
            directory=flags.output / "state",
            backup_every=flags.backup_every,
            validation_data=test,
            callbacks=[progress.callback()],
            verbose=0,
        )
    model.save(flags.output / "network.keras")
    row = report.evaluate(model, test, "network")
    folders.write_json(flags.output / "results.json", row.as_dict())
    return row.as_dict()


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    fields = report.Row.__dataclass_fields__
    row = report.Row(**{key: result[key] for key in fields})
    return (
        f"{report.markdown_table([row])}\n\nThe network is "
        f"{flags.output}/network.keras."
    )


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--data_dir",
        required=True,
        help="CIFAR-10: one of its archives (for C, for Python), unpacked, a TFDS "
        "directory, or TF-Slim's TFRecords",
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder")
    network = parser.add_argument_group("network")
    add_units(network, "5 5 5", default=[5, 5, 5])
    network.add_argument("--adaptivity", choices=_ADAPTIVITIES, default="sact")
    network.add_argument("--tau", type=float, default=0.01)
    network.add_argument("--base_channels", type=int, default=16)
    network.add_argument(
        "--initialize_from",
        metavar="NETWORK",
        help="weights to begin with, as those of a plain network for SACT (section "
        f"4.1): {networks.KINDS}",
    )
    schedule = parser.add_argument_group("schedule")
    schedule.add_argument("--steps", type=int, default=100000, help="updates in all")
    schedule.add_argument("--batch_size", type=int, default=128)
    schedule.add_argument("--rate", type=float, default=0.1, help="at the beginning")
    schedule.add_argument("--seed", type=int, default=0)
    schedule.add_argument(
        "--evaluate_every",
        type=int,
        default=2000,
        help="updates from one evaluation on the test images to the next; divides "
        "--steps",
    )
    device = parser.add_argument_group("device")
    device.add_argument("--precision", choices=_PRECISIONS, default="float32")
    device.add_argument(
        "--steps_per_call",
        type=int,
        default=500,
        help="updates in one call of the device; divides --evaluate_every",
    )
    device.add_argument(
        "--jit",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether XLA compiles the update, which takes a minute at first",
    )
    device.add_argument(
        "--backup_every",
        type=int,
        help="updates from one checkpoint to the next; --evaluate_every by default",
    )


def _check(flags):
    command_line.require_at_least(
        flags,
        steps=1,
        batch_size=1,
        evaluate_every=1,
        steps_per_call=1,
        backup_every=1,
        base_channels=1,
    )
    for part, whole in (
        ("evaluate_every", "steps"),
        ("steps_per_call", "evaluate_every"),
    ):
        if getattr(flags, whole) % getattr(flags, part):
            raise ValueError(
                f"--{part} must divide --{whole}, {getattr(flags, whole)}. Received: "
                f"{getattr(flags, part)}"
            )
    if not flags.rate > 0:
        raise ValueError(f"--rate must be above zero. Received: {flags.rate}")


def _network(flags):
    tf_keras.utils.set_random_seed(flags.seed)
    model = ResNet(
        "cifar",
        flags.units,
        flags.adaptivity,
        cifar10.NUM_CLASSES,
        base_channels=flags.base_channels,
        tau=flags.tau,
        dtype=flags.precision,
    )
    if flags.initialize_from:
        initialize_from(model, networks.load(flags.initialize_from))
    boundaries = [round(share * flags.steps) for share in _DROPS]
    rates = [flags.rate * 0.1**drop for drop in range(len(_DROPS) + 1)]
    schedule = tf_keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    model.compile(
        # Its own compiler would compile the update of every variable by itself.
        tf_keras.optimizers.SGD(schedule, momentum=0.9, jit_compile=False),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
        jit_compile=flags.jit,
        steps_per_execution=flags.steps_per_call,
    )
    return model


def _test_set(images, labels):
    """Standardised once, and kept."""
    examples = tf.data.Dataset.from_tensor_slices((images, labels)).batch(_EVALUATED)
    return examples.map(
        lambda images, labels: (preprocessing.normalize(images, "cifar"), labels)
    ).cache()


class _Progress:
    """A bar of all updates, and a line for every epoch: the numbers, and the time.

    No callback of its own, since what callbacks have is kept with a run.
    """

    def __init__(self, model, log, flags):
        self._model, self._log, self._flags = model, log, flags
        self._bar = self._began = None
        self._first = self._done = 0
        self._seconds = 0.0

    def callback(self):
        """For fit."""
        return tf_keras.callbacks.LambdaCallback(
            on_epoch_begin=self._begin,
            on_batch_end=self._advance,
            on_epoch_end=self._write,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def _begin(self, epoch, logs):
        self._first = self._done = int(self._model.optimizer.iterations)
        if self._bar is None:
            self._bar = tqdm(
                total=self._flags.steps,
                initial=self._done,
                desc=str(self._flags.output),
                unit="update",
            )
        self._began = time.perf_counter()

    def _advance(self, batch, logs):
        # Keras has waited for the device, whose numbers are here.
        self._seconds = time.perf_counter() - self._began
        done = int(self._model.optimizer.iterations)
        self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
        self._bar.update(done - self._done)
        self._done = done

    def _write(self, epoch, logs):
        updates = max(self._done - self._first, 1)
        self._log.add(
            (epoch + 1) * self._flags.evaluate_every,
            {
                **{name: float(value) for name, value in logs.items()},
                "milliseconds_per_update": round(1e3 * self._seconds / updates, 3),
            },
        )


COMMAND = command_line.Command(
    "train_cifar", __doc__, add_flags, run, show, "print the row as JSON"
)

if __name__ == "__main__":
    COMMAND.main()
