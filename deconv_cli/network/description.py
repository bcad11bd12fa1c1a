"""What a model is, in one frozen value that every command consults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from deconv_cli.errors import UsageError
from deconv_cli.network.activations import find_activation

KERNEL = 3
"""Side of the convolutions inside a level; the ones between levels are 2 x 2 with stride 2."""


@dataclass(frozen=True)
class Architecture:
    """The shape of an encoder-decoder.

    Attributes
    ----------
    widths
        Channels per level, from full resolution downwards; each level has half the side of the one before.
    blocks
        Residual blocks per level, used once in the encoder and once in the decoder; the last entry is the bottom,
        which is passed once.
    activation
        Name in the activation registry.
    channels
        Channels of the picture (3: RGB; a gray picture goes through as three equal ones).
    condition_planes
        Constant planes fed beside the picture: 1 for a noise level, 0 for a blind model.
    scale
        Output side over input side. Above 1 everything works on the small picture, and the last layer, a transposed
        convolution whose kernel equals its stride, makes the large one.
    """

    widths: tuple[int, ...] = (32, 64, 128, 240)
    blocks: tuple[int, ...] = (1, 1, 2, 3)
    activation: str = "relu"
    channels: int = 3
    condition_planes: int = 1
    scale: int = 1

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise UsageError(
                f"widths {self.widths} and blocks {self.blocks} must have one entry for each level, and at least one"
            )
        if min(self.widths) < 1 or min(self.blocks) < 0:
            raise UsageError(f"widths {self.widths} must be positive and blocks {self.blocks} not negative")
        if self.scale < 1:
            raise UsageError(f"the scale must be at least 1, not {self.scale}")
        find_activation(self.activation)

    @property
    def size_multiple(self) -> int:
        """What the height and width of an input must be multiples of: the total stride."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def influence_radius(self) -> int:
        """How far, in input pixels, an input pixel can change the output, rounded up to the size multiple.

        A tile whose core is surrounded by this many pixels of true context gives the core of the whole picture's
        result. Found by following the input interval that an aligned block of output pixels depends on from the tail
        back to the head, in the pixel grid of each level. An enlarging tail reaches less far than the one counted here,
        and the bicubic interpolation beside it no further than the two pixels of the smallest network.
        """
        low, high = 0, self.size_multiple - 1
        for level, blocks in enumerate(self.blocks[:-1]):
            reach = 2 * blocks + (level == 0)
            low, high = (low - reach) // 2, (high + reach) // 2
        low, high = low - 2 * self.blocks[-1], high + 2 * self.blocks[-1]
        for level, blocks in reversed(list(enumerate(self.blocks[:-1]))):
            reach = 2 * blocks + (level == 0)
            low, high = 2 * low - reach, 2 * high + 1 + reach
        if len(self.blocks) == 1:
            low, high = low - 2, high + 2
        return self.round_up(max(-low, high - self.size_multiple + 1))

    @property
    def tail_kernel(self) -> int:
        """Side of the last layer's kernel: a convolution's, or a transposed convolution's that enlarges."""
        return KERNEL if self.scale == 1 else self.scale

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds per output pixel of one pass."""
        inputs = self.channels + self.condition_planes
        total = self.widths[0] * (KERNEL**2 * inputs + self.tail_kernel**2 * self.channels)
        bottom = len(self.widths) - 1
        for level, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            passes = 1 if level == bottom else 2
            total += passes * blocks * 2 * (KERNEL * width) ** 2 / 4**level
            if level < bottom:
                total += 2 * width * self.widths[level + 1] / 4**level
        return float(total) / self.scale**2

    @property
    def parameters(self) -> int:
        """Number of parameters, biases included."""
        inputs, outer = self.channels + self.condition_planes, self.channels
        total = self.widths[0] * (KERNEL**2 * inputs + self.tail_kernel**2 * outer) + self.widths[0] + outer
        bottom = len(self.widths) - 1
        for level, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            passes = 1 if level == bottom else 2
            total += passes * blocks * (2 * ((KERNEL * width) ** 2 + width) + (self.activation == "prelu"))
            if level < bottom:
                below = self.widths[level + 1]
                total += 2 * 4 * width * below + width + below
        return total

    def round_up(self, size: int) -> int:
        """Round a side up to the size multiple."""
        return -(-size // self.size_multiple) * self.size_multiple


@dataclass(frozen=True)
class Description:
    """All that a command needs to know about a model before it loads the weights.

    Attributes
    ----------
    name
        Name of the weights, as users type it.
    task
        Name of the task the weights were trained for.
    architecture
        Shape of the network.
    level_range
        Lowest and highest degradation level of the training, in the task's own unit (denoise: sigma on 0..255).
    precisions
        Number formats in which the model may run; the first is the reference.
    """

    name: str
    task: str
    architecture: Architecture
    level_range: tuple[float, float]
    precisions: tuple[str, ...] = ("fp32", "bf16")

    @property
    def scale(self) -> int:
        """Output side over input side."""
        return self.architecture.scale

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Description:
        """Rebuild a description from `to_dict`, lists turned back into tuples.

        Raises
        ------
        UsageError, TypeError, KeyError
            If the values do not describe a model.
        """
        architecture = {key: _tuples(value) for key, value in values["architecture"].items()}
        # The first files had a scale of 1 here as well.
        rest = {key: _tuples(value) for key, value in values.items() if key not in ("architecture", "scale")}
        return cls(architecture=Architecture(**architecture), **rest)


def _tuples(value: Any) -> Any:  # noqa: ANN401 - JSON values
    return tuple(value) if isinstance(value, list) else value
