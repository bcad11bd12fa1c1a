"""What a model is, in one frozen value that every command consults."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from dataclasses import dataclass
from typing import Any

from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.network.activations import find_activation

KERNEL = 3
"""Side of the convolutions inside a level; the ones between levels are 2 x 2 with stride 2."""
LAYOUTS = ("pyramid", "rednet")
UPSAMPLINGS = ("deconv", "resize", "shuffle")
MAX_LEVELS = 8
"""More would ask for pictures of hundreds of pixels a side at least, and a stranger's file for any amount."""
MAX_BLOCKS = 1000
"""Of all levels together; a stranger's file could ask for any number."""
CHANNELS = (1, 3)
NOT_IN_NAMES = {"/", os.sep, "\0"}
"""What no file's name can hold: weights are named after their file, which may hold all else, and exports after them."""


@dataclass(frozen=True)
class Architecture:
    """The shape of an encoder-decoder.

    Attributes
    ----------
    widths
        Channels per level, from full resolution downwards; each level has half the side of the one before.
    blocks
        Residual blocks per level, used once in the encoder and once in the decoder; the last entry is the bottom,
        which is passed once. Of a rednet: its convolutions, which as many transposed ones mirror.
    activation
        Name in the activation registry.
    channels
        Channels of the picture (3: RGB; a gray picture goes through as three equal ones).
    condition_planes
        Constant planes fed beside the picture: 1 for a noise level, 0 for a blind model.
    scale
        Output side over input side. Above 1 everything works on the small picture, and the last layer, a transposed
        convolution whose kernel equals its stride, makes the large one.
    layout
        ``pyramid``: levels that halve the side (`EncoderDecoder`); ``rednet``: a stack of convolutions and one of
        transposed convolutions at full resolution (`RedNet`), with one width.
    skips
        Whether the encoder's features are added to the decoder's.
    upsampling
        How a pyramid goes up: ``deconv``, a transposed convolution; ``resize``, nearest neighbour and a convolution
        (Odena et al. 2016); ``shuffle``, a convolution to four times the channels that are then spread over 2 x 2
        pixels (Shi et al. 2016).
    inner
        Channels between the two convolutions of every residual block, in the order of `residual_blocks`, where
        pruning left fewer than the level is wide; empty: as many.
    """

    widths: tuple[int, ...] = (32, 64, 128, 240)
    blocks: tuple[int, ...] = (1, 1, 2, 3)
    activation: str = "relu"
    channels: int = 3
    condition_planes: int = 1
    scale: int = 1
    layout: str = "pyramid"
    skips: bool = True
    upsampling: str = "deconv"
    inner: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise UsageError(
                f"widths {self.widths} and blocks {self.blocks} must have one entry for each level, and at least one"
            )
        numbers = *self.widths, *self.blocks, *self.inner, self.scale, self.channels, self.condition_planes
        if not all(type(number) is int for number in numbers):
            raise UsageError(
                f"widths {self.widths}, blocks {self.blocks}, inner widths {self.inner}, scale {self.scale},"
                f" channels {self.channels} and condition planes {self.condition_planes} must be whole numbers"
            )
        if len(self.widths) > MAX_LEVELS:
            raise UsageError(f"a network has at most {MAX_LEVELS} levels, not {len(self.widths)}")
        if min(self.widths) < 1 or min(self.blocks) < 0:
            raise UsageError(f"widths {self.widths} must be positive and blocks {self.blocks} not negative")
        if sum(self.blocks) > MAX_BLOCKS:
            raise UsageError(f"a network has at most {MAX_BLOCKS} blocks, not {sum(self.blocks)}")
        if self.scale < 1:
            raise UsageError(f"the scale must be at least 1, not {self.scale}")
        find_activation(self.activation)
        for kind, name, valid in (
            ("architecture", self.layout, LAYOUTS),
            ("upsampling", self.upsampling, UPSAMPLINGS),
        ):
            if name not in valid:
                raise unknown_name(kind, name, valid)
        if self.layout == "rednet" and (len(self.widths) != 1 or self.blocks[0] < 1):
            raise UsageError(f"a rednet has one width and one number of layers, not {self.widths} and {self.blocks}")
        self._check_inner()

    def _check_inner(self) -> None:
        count = 0 if self.layout == "rednet" else 2 * sum(self.blocks) - self.blocks[-1]
        if self.inner and (len(self.inner) != count or min(self.inner) < 1):
            raise UsageError(f"inner widths {self.inner} must be positive, one for each of the {count} residual blocks")

    @property
    def residual_blocks(self) -> dict[str, tuple[int, int]]:
        """Of a pyramid: name of every residual block to its level and the channels between its convolutions."""
        bottom = len(self.widths) - 1
        stacks = [(f"encoder.{level}", level) for level in range(bottom)]
        stacks += [("bottom", bottom), *((f"decoder.{level}", level) for level in range(bottom))]
        levels = {f"{stack}.{at}": level for stack, level in stacks for at in range(self.blocks[level])}
        inner = self.inner or [self.widths[level] for level in levels.values()]
        return {name: (level, width) for (name, level), width in zip(levels.items(), inner, strict=True)}

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
        if self.layout == "rednet":
            return 2 * self.blocks[0] * (KERNEL // 2)
        low, high = 0, self.size_multiple - 1
        for level, blocks in enumerate(self.blocks[:-1]):
            reach = 2 * blocks + (level == 0) + (self.upsampling == "resize")
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
        if self.layout == "rednet":
            # At full resolution every weight acts once at every pixel.
            return (self.parameters - self._rednet_biases) / self.scale**2
        total: float = self.widths[0] * (KERNEL**2 * inputs + self.tail_kernel**2 * self.channels)
        for level, inner in self.residual_blocks.values():
            total += 2 * KERNEL**2 * self.widths[level] * inner / 4**level
        for level, (width, below) in enumerate(itertools.pairwise(self.widths)):
            down, up = 1, {"deconv": 1, "resize": KERNEL**2, "shuffle": 1}[self.upsampling]
            total += (down + up) * width * below / 4**level
        return float(total) / self.scale**2

    @property
    def parameters(self) -> int:
        """Number of parameters, biases included."""
        inputs, outer = self.channels + self.condition_planes, self.channels
        ends = self.widths[0] * (KERNEL**2 * inputs + self.tail_kernel**2 * outer)
        if self.layout == "rednet":
            return ends + 2 * (self.blocks[0] - 1) * (KERNEL * self.widths[0]) ** 2 + self._rednet_biases
        total = ends + self.widths[0] + outer
        for level, inner in self.residual_blocks.values():
            width = self.widths[level]
            total += 2 * KERNEL**2 * width * inner + width + inner + (self.activation == "prelu")
        for width, below in itertools.pairwise(self.widths):
            up = {
                "deconv": 4 * below * width + width,
                "resize": KERNEL**2 * below * width + width,
                "shuffle": 4 * (below * width + width),
            }
            total += 4 * width * below + below + up[self.upsampling]
        return total

    @property
    def _rednet_biases(self) -> int:
        """Parameters of a rednet beside its kernels: biases, and a slope for every prelu."""
        activations = 2 * self.blocks[0] - 1
        return activations * (self.widths[0] + (self.activation == "prelu")) + self.channels

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
    classes
        Names of the classes of a classifier, in the order of its outputs; empty for a restoration.
    side
        Side in pixels of the pictures that a classifier was trained on; 0 for a restoration.
    """

    name: str
    task: str
    architecture: Architecture
    level_range: tuple[float, float]
    precisions: tuple[str, ...] = ("fp32", "bf16")
    classes: tuple[str, ...] = ()
    side: int = 0

    @property
    def name_in_utf8(self) -> str:
        r"""The name as other programs take it: the file's that it comes from need not be UTF-8.

        >>> Description("a\udce4", "denoise", Architecture((4,), (1,)), (0, 75)).name_in_utf8
        'a?'
        """
        return self.name.encode(errors="replace").decode()

    @property
    def scale(self) -> int:
        """Output side over input side."""
        return self.architecture.scale

    @property
    def parameters(self) -> int:
        """Number of parameters; a classifier has a dense layer in place of the last convolution."""
        if not self.classes:
            return self.architecture.parameters
        width, outer = self.architecture.widths[0], self.architecture.channels
        tail = self.architecture.tail_kernel**2 * width * outer + outer
        return self.architecture.parameters - tail + (width + 1) * len(self.classes)

    def __post_init__(self) -> None:
        levels = self.level_range
        if len(levels) != 2 or not all(isinstance(level, int | float) and math.isfinite(level) for level in levels):
            raise UsageError(f"the range of levels must be two numbers, not {levels}")
        if not isinstance(self.name, str) or not isinstance(self.task, str):
            raise UsageError("name and task must be text")
        if NOT_IN_NAMES & set(self.name):
            raise UsageError("the name is none that a file can have")
        if self.architecture.channels not in CHANNELS:
            raise UsageError(f"a picture has 1 or 3 channels, not {self.architecture.channels}")

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
