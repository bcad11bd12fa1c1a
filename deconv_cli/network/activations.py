"""The named activation functions and the initialisation gain that belongs to each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deconv_cli.errors import unknown_name

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Activation:
    """An activation function by name.

    Attributes
    ----------
    name
        The name users type.
    module
        Name of the class in ``torch.nn``.
    gain
        Factor on the standard deviation ``1 / sqrt(fan_in)`` of a convolution that this activation follows. The
        rectifiers follow He et al. 2015 (arXiv 1502.01852, section 2.2), tanh and sigmoid Glorot and Bengio 2010
        (PyTorch's 5/3 for tanh; 4 for the sigmoid, whose slope at zero is a quarter); for the smooth ones it is
        ``1 / sqrt(E[f(z)^2])`` for a standard normal ``z``, the same second-moment rule.
    arguments
        Keyword arguments of the class.
    centre
        What it makes of zero. The bias of the convolution behind it takes this out, for a mean that is the same in all
        channels pushes every unit of the next layer to one side.
    saturation
        The size of ``z`` from which the slope is less than a twentieth of its largest; None if it does not saturate on
        both sides.
    rectifier
        Whether it is linear with a kink at zero, so that a unit may never be on.
    """

    name: str
    module: str
    gain: float
    arguments: dict[str, Any] = field(default_factory=dict)
    centre: float = 0.0
    saturation: float | None = None
    rectifier: bool = False

    def build(self) -> nn.Module:
        """Make one instance (each place gets its own, since ``prelu`` has a parameter)."""
        import torch.nn

        built: nn.Module = getattr(torch.nn, self.module)(**self.arguments)
        return built


# In-place rectifiers are safe behind a convolution, whose backward pass does not read its own output.
ACTIVATIONS = MappingProxyType(
    {
        activation.name: activation
        for activation in (
            Activation("relu", "ReLU", 2**0.5, {"inplace": True}, rectifier=True),
            Activation(
                "leaky_relu",
                "LeakyReLU",
                (2 / (1 + 0.01**2)) ** 0.5,
                {"negative_slope": 0.01, "inplace": True},
                rectifier=True,
            ),
            Activation(
                "leaky_relu_0.2",
                "LeakyReLU",
                (2 / (1 + 0.2**2)) ** 0.5,
                {"negative_slope": 0.2, "inplace": True},
                rectifier=True,
            ),
            Activation("prelu", "PReLU", (2 / (1 + 0.25**2)) ** 0.5, rectifier=True),
            Activation("tanh", "Tanh", 5 / 3, saturation=math.acosh(20**0.5)),
            Activation("sigmoid", "Sigmoid", 4.0, centre=0.5, saturation=2 * math.acosh(20**0.5)),
            Activation("elu", "ELU", 1.2452),
            Activation("gelu", "GELU", 1.5335),
            Activation("silu", "SiLU", 1.6766),
            Activation("mish", "Mish", 1.4868),
            Activation("none", "Identity", 1.0),
        )
    }
)


def find_activation(name: str) -> Activation:
    """Return the activation of that name.

    Raises
    ------
    UsageError
        If there is none; the message lists the valid names.
    """
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
