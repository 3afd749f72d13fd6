"""A classifier from a folder of images: trained, evaluated, kept in a run's folder.

The recipe is that of section 4.1 of the paper: a plain network first, then the adaptive
one from its weights; or the adaptive one from a network that is given.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras
from tqdm import tqdm

from sact_tf import classifier_runs, resumable, training
from sact_tf.checkpoints import files
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.data.image_folder import ImageFolder
from sact_tf.evaluation import report
from sact_tf.models.resnet import ResNet

_SHOWN = 4  # validation images whose ponder cost maps TensorBoard shows
_BACKUP_EVERY = 200  # steps
_CHECKED, _RESULT = "images_checked.json", "result.json"

#: Batch norm's moving statistics are of about a thirtieth of the steps ...
_MOMENTUM_STEPS = 30
#: ... within these bounds: the upper one is that of ImageNet's long trainings.
_MOMENTA = (0.9, 0.997)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
      image_size: side of the images in pixels.
      epochs: in all.
      plain_epochs: how many of these as a plain network, whose weights the adaptive one
        takes over.
      batch_size: images in a step.
      learning_rate: Adam's, at the beginning of the first stage; it falls to zero along
        a cosine. The adaptive network begins at half of it.
      min_area: see `ImageFolder.training`.
      seed: of weights, order and augmentation.
    """

    image_size: int = 128
    epochs: int = 30
    plain_epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 0.002
    min_area: float | None = None
    seed: int = 0

    def __post_init__(self):
        """Checks the numbers."""
        for name in ("image_size", "epochs", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        if not 0 <= self.plain_epochs <= self.epochs:
            raise ValueError(
                "plain_epochs must be from 0 to the number of epochs. Received: "
                f"{self.plain_epochs} of {self.epochs}"
            )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive. Received: {self.learning_rate}"
            )


@dataclasses.dataclass(frozen=True)
class Start:
    """A trained network to start from.

    Attributes:
      network: whose weights are taken: halting scores, if it has some of the kind, and
        the classification layer, if its classes are the same.
      classes: names of its classes, if anybody knows them.
    """

    network: ResNet
    classes: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class _Stage:
    name: str
    model: ResNet
    epochs: int
    learning_rate: float


def train(
    images: ImageFolder,
    output: str | os.PathLike,
    network: dict,
    recipe: Recipe,
    *,
    start: Start | None = None,
    say: Callable[[str], object] = print,
) -> dict:
    """Trains a classifier, or goes on where the same call was interrupted.

    Args:
      images: to train and to validate with.
      output: folder of the run, made if it is not there. What comes out of it is for
        `classifier_runs.load`, and whatever takes a network.
      network: arguments of `ResNet`, without num_classes.
      recipe: how to train.
      start: what to start from; fresh weights by default.
      say: told what is going on.

    Returns:
      What the network reaches on the validation images, and what it costs: a
      `report.Row` as a dict, and plain_flops (of the plain network of the same units,
      per image) and share_of_flops.

    Raises:
      ValueError: the folder holds something else, or a run with other settings; images
        cannot be read; the start does not fit; or see `ResNet` and `training.fit`.
    """
    settings = {
        "network": network,
        "recipe": dataclasses.asdict(recipe),
        "classes": list(images.classes),
        "images": images.fingerprint(),
        "start": start and files.fingerprint(start.network),
    }
    tf_keras.utils.set_random_seed(recipe.seed)
    stages = _stages(images, network, recipe)
    _batches(images, recipe, stages[0].model.family)()
    if start is None:
        stages[0].model.begin_as_identity()
    else:
        same = list(start.classes or ()) == list(images.classes)
        initialize_from(stages[0].model, start.network, head=same)
    # Only now: what does not fit has been said.
    run = resumable.claim(
        pathlib.Path(output), settings, "training", classifier_runs.SETTINGS
    )
    _check_images(images, run)
    for number, stage in enumerate(stages):
        if number:
            initialize_from(stage.model, stages[number - 1].model)
        _fit(stage, images, recipe, run.folder / "training" / stage.name, say)
    trained = stages[-1].model
    result = run.read(_RESULT)
    if result is None:
        result = evaluate(trained, images, recipe.image_size, recipe.batch_size)
        run.write(_RESULT, result)
        result = run.read(_RESULT)
    classifier_runs.write(
        classifier_runs.ClassifierRun(trained, recipe.image_size, images.classes),
        run.folder,
    )
    return result


def evaluate(
    network: ResNet, images: ImageFolder, image_size: int, batch_size: int
) -> dict:
    """What a network reaches on the validation images; see `train`."""
    evaluation = report.Evaluation(len(network.blocks))
    batches = images.validation(image_size, batch_size, family=network.family)
    total = len(images.validation_images.paths)
    with tqdm(total=total, desc="evaluating", unit="image", leave=False) as bar:
        for batch, labels in batches:
            evaluation.add(network.introspect(batch), labels)
            bar.update(len(batch))
    row = evaluation.row("validation")
    plain = plain_flops(network, image_size)
    return {
        **row.as_dict(),
        "plain_flops": plain,
        "share_of_flops": row.flops / plain,
    }


def plain_flops(network: ResNet, image_size: int) -> int:
    """FLOPs of the plain network of the same units, for an image of S x S pixels."""
    plain = ResNet(**_plain(network.get_config()))
    image = tf.zeros([1, image_size, image_size, 3])
    return int(plain.introspect(image)["flops"][0])


def _plain(network):
    """Arguments of the plain network of the same units."""
    others = ("tile_size", "execution")  # Mean nothing to it.
    kept = {key: value for key, value in network.items() if key not in others}
    return {**kept, "adaptivity": "none"}


def _stages(images, network, recipe):
    adaptivity = network.get("adaptivity", "sact")
    adaptive = adaptivity != "none"
    split = [recipe.plain_epochs, recipe.epochs - recipe.plain_epochs]
    plan = [("plain", _plain(network), split[0]), (adaptivity, network, split[1])]
    if not adaptive:
        plan = [("plain", network, recipe.epochs)]
    plan = [entry for entry in plan if entry[-1]]
    stages = []
    for number, (name, arguments, epochs) in enumerate(plan):
        steps = epochs * images.steps_per_epoch(recipe.batch_size)
        momentum = max(_MOMENTA[0], min(_MOMENTA[1], 1 - _MOMENTUM_STEPS / steps))
        options = {"batch_norm_momentum": momentum, **arguments}
        model = ResNet(**options, num_classes=len(images.classes))
        rate = recipe.learning_rate / 2**number
        stages.append(_Stage(f"{number + 1}-{name}", model, epochs, rate))
    return stages


def _check_images(images, run):
    """Decodes all images, once in a run: a broken one is found now, not in an hour."""
    if run.read(_CHECKED) is not None:
        return
    total = len(images.train_images.paths) + len(images.validation_images.paths)
    with tqdm(total=total, desc="looking at", unit="image", leave=False) as bar:
        images.check(bar.update)
    run.write(_CHECKED, {"images": total})


def _batches(images, recipe, family):
    """What gives the training batches, from `first_step` on."""
    return functools.partial(
        images.training,
        recipe.image_size,
        recipe.batch_size,
        family=family,
        min_area=recipe.min_area,
        seed=recipe.seed,
    )


def _fit(stage, images, recipe, directory, say):
    model = stage.model
    steps = images.steps_per_epoch(recipe.batch_size)
    model.compile(
        tf_keras.optimizers.Adam(
            tf_keras.optimizers.schedules.CosineDecay(
                stage.learning_rate, stage.epochs * steps
            ),
            global_clipnorm=5.0,
        ),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
    batches = _batches(images, recipe, model.family)
    validation = images.validation(
        recipe.image_size, recipe.batch_size, family=model.family
    )
    logs = str(directory / "logs")
    callbacks = [tf_keras.callbacks.TensorBoard(logs, write_graph=False)]
    if model.adaptivity != "none":
        shown = next(iter(validation))[0][:_SHOWN]
        callbacks.append(training.PonderCostMaps(shown, logs))
    say(f"\n{stage.name}: {stage.epochs} epochs of {steps} steps")
    training.fit(
        model,
        lambda step: batches(first_step=step),
        epochs=stage.epochs,
        steps_per_epoch=steps,
        directory=directory,
        backup_every=_BACKUP_EVERY,
        validation_data=validation,
        callbacks=callbacks,
    )
