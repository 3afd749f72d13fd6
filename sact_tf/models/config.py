"""What can be chosen about a network, checked at once."""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sact_tf.geometry import calibration
from sact_tf.geometry.calibration import Calibration
from sact_tf.layers import adaptive_sampling
from sact_tf.layers.adaptive_blocks import EXECUTIONS
from sact_tf.layers.maker import Maker
from sact_tf.layers.sampled_blocks import resolve_sizes
from sact_tf.layers.stochastic_sampling import Sampling
from sact_tf.models import cifar, imagenet, resnet_d
from sact_tf.models.family import Family

FAMILIES = {
    "imagenet": imagenet.FAMILY,
    "cifar": cifar.FAMILY,
    "resnet_d": resnet_d.FAMILY,
    "resnet_d_small": resnet_d.SMALL_FAMILY,
}

#: Metadata of a field that files of earlier versions do not have.
ADDED_LATER = {"added_later": True}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Arguments of a network without its head; see `sact_tf.ResNet` for each.

    A field that is added must have a default that changes nothing, and ADDED_LATER as
    metadata: at its default it is left out of what is written, which stays as it was.

    Raises:
      ValueError: an argument is out of range; the message says which.
    """

    family: str = "imagenet"
    units: int | str | Sequence[int] = (3, 4, 23, 3)
    adaptivity: str = "sact"
    base_channels: int | None = None
    tau: float = 0.005
    epsilon: float = 0.01
    execution: str = "auto"
    tile_size: int = 1
    root_channels: int | None = None
    weight_decay: float | None = None
    freeze_batch_norm: bool = False
    batch_norm_momentum: float | None = None
    calibration: Calibration | Mapping | None = field(
        default=None, metadata=ADDED_LATER
    )
    sampling: str | None = field(default=None, metadata=ADDED_LATER)
    sampling_sizes: float | Sequence[int | float] | None = field(
        default=None, metadata=ADDED_LATER
    )
    masks: Mapping | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self):
        """Checks the fields, and brings them into one form."""
        self._one_of("family", FAMILIES)
        self._one_of("adaptivity", self.spec.adaptivities)
        self._one_of("execution", EXECUTIONS)
        self._set("units", self.spec.resolve_units(self.units))
        self._integer("tile_size", 1)
        for name in ("base_channels", "root_channels"):
            if getattr(self, name) is not None:
                self._integer(name, 1)
        self._real("tau", "zero or more", lambda value: value >= 0)
        self._real(
            "epsilon", "between 0 and 1, both excluded", lambda value: 0 < value < 1
        )
        if self.weight_decay is not None:
            self._real("weight_decay", "zero or more", lambda value: value >= 0)
        if self.batch_norm_momentum is not None:
            self._real(
                "batch_norm_momentum",
                "at least 0 and less than 1",
                lambda value: 0 <= value < 1,
            )
        if self.tile_size > 1 and self.adaptivity != "sact":
            raise ValueError(
                "tile_size shares the scores of positions, which only adaptivity='sact'"
                f" has. Received: tile_size={self.tile_size}, "
                f"adaptivity={self.adaptivity!r}"
            )
        self._check_sampling()
        self._check_masks()
        self._set("tau", float(self.tau))
        self._set("epsilon", float(self.epsilon))
        self._set("freeze_batch_norm", bool(self.freeze_batch_norm))
        packs = self.execution == "auto" and self.adaptivity == "sact"
        if packs or self.calibration is not None:
            self._set("calibration", calibration.resolved(self.calibration))

    @property
    def spec(self) -> Family:
        """What the family says about itself."""
        return FAMILIES[self.family]

    def width(self, block: int) -> int:
        """Channels of the 3x3 convolutions of a block, counted from zero."""
        return (self.base_channels or self.spec.base_channels) * 2**block

    def channels(self, block: int) -> int:
        """Channels of what a block gives, counted from zero; -1 for the root."""
        if block >= 0:
            return self.spec.expansion * self.width(block)
        return self.root_channels or self.spec.root_channels or self.width(0)

    def maker(self, dtype=None) -> Maker:
        """What makes the network's layers, of a dtype or policy."""
        spec, norm = self.spec, self.spec.batch_norm
        decay, momentum = self.weight_decay, self.batch_norm_momentum
        return Maker(
            weight_decay=spec.weight_decay if decay is None else decay,
            momentum=norm["momentum"] if momentum is None else momentum,
            epsilon=norm["epsilon"],
            trainable=not self.freeze_batch_norm,
            leak=spec.leak,
            dtype=dtype,
        )

    def arguments(self, kind: type | None = None) -> dict:
        """The fields, or those of a base class, as plain values, for `get_config`."""
        values = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(kind or self)
            if not each.metadata.get("added_later")
            or getattr(self, each.name) != each.default
        }
        if "calibration" in values:
            values["calibration"] = calibration.as_dict(values["calibration"])
        lists = ("units", "sampling_sizes")
        return {k: list(v) if k in lists else v for k, v in values.items()}

    @classmethod
    def split(cls, arguments: dict) -> tuple["BackboneConfig", dict]:
        """A config from those of the arguments that are fields, and the others."""
        names = {each.name for each in dataclasses.fields(cls)}
        own = {name: value for name, value in arguments.items() if name in names}
        others = {key: arguments[key] for key in arguments if key not in names}
        return cls(**own), others

    def _check_sampling(self):
        if self.sampling is not None:
            self._one_of("sampling", adaptive_sampling.NAMES)
            if self.adaptivity != "none" or not self.spec.can_be_sampled:
                raise ValueError(
                    "sampling is for the families resnet_d and resnet_d_small with "
                    f"adaptivity='none'. Received: sampling={self.sampling!r}, "
                    f"family={self.family!r}, adaptivity={self.adaptivity!r}"
                )
        sizes = resolve_sizes(
            self.sampling, self.sampling_sizes, len(self.spec.strides)
        )
        self._set("sampling_sizes", sizes)

    def _check_masks(self):
        if self.masks is not None:
            if self.adaptivity != "ssin":
                raise ValueError(
                    "masks are drawn with adaptivity='ssin' only. Received: "
                    f"masks={self.masks!r}, adaptivity={self.adaptivity!r}"
                )
            self._set("masks", Sampling.checked(self.masks)._asdict())
        if self.adaptivity == "ssin" and self.execution == "tiles":
            raise ValueError(
                "Networks with adaptivity='ssin' have the executions 'auto', 'dense' "
                "and 'positions'. Received: execution='tiles'"
            )

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def _real(self, name, what, allowed):
        value = getattr(self, name)
        real = isinstance(value, numbers.Real) and math.isfinite(value)
        if not real or not allowed(value):
            raise ValueError(f"{name} must be {what}. Received: {name}={value!r}")

    def _one_of(self, name, allowed):
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, allowed))}. "
                f"Received: {name}={value!r}"
            )

    def _integer(self, name, least):
        value = getattr(self, name)
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(
                f"{name} must be an integer of at least {least}. "
                f"Received: {name}={value!r}"
            )
        self._set(name, int(value))


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(BackboneConfig):
    """Arguments of a classification network."""

    num_classes: int = 1001

    def __post_init__(self):
        """Checks the fields, and brings them into one form."""
        super().__post_init__()
        self._integer("num_classes", 1)
