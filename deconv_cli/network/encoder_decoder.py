"""The conv/deconv encoder-decoder with symmetric skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deconv_cli.images.resampling import enlarging
from deconv_cli.network.activations import find_activation
from deconv_cli.network.description import KERNEL, Architecture

RESIDUAL_GAIN = 0.1
"""Gain of the last convolution of a residual branch: at initialisation a block is close to the identity."""


class ResidualBlock(nn.Module):
    """Convolution, activation, convolution, added to the input (He et al. 2016, without normalisation)."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2)
        self.activation = find_activation(activation).build()
        self.conv2 = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2)
        init_conv(self.conv1, find_activation(activation).gain)
        init_conv(self.conv2, RESIDUAL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to the same shape."""
        residual: Tensor = self.conv2(self.activation(self.conv1(x)))
        return residual.add_(x)


class EncoderDecoder(nn.Module):
    """Convolutions encode, transposed convolutions decode, symmetric skips carry detail and gradients.

    The idea is RED-Net's (Mao, Shen and Yang 2016, arXiv 1606.08921), moved from full resolution to a pyramid:
    2 x 2 convolutions with stride 2 lead down, 2 x 2 transposed convolutions with stride 2 lead up, and the network
    predicts what is to be added to its input, enlarged by bicubic interpolation if the architecture has a scale.

    Parameters
    ----------
    architecture
        The shape of the network. Parameters are initialised to match its activation, drawing from torch's generator.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths, blocks = architecture.widths, architecture.blocks

        def level(i: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(widths[i], architecture.activation) for _ in range(blocks[i])))

        steps = range(len(widths) - 1)
        self.head = nn.Conv2d(
            architecture.channels + architecture.condition_planes, widths[0], KERNEL, padding=KERNEL // 2
        )
        self.encoder = nn.ModuleList(level(i) for i in steps)
        self.down = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in steps)
        self.bottom = level(len(widths) - 1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in steps)
        self.decoder = nn.ModuleList(level(i) for i in steps)
        self.tail = make_tail(architecture)

        init_conv(self.head, 1.0)
        (init_conv if architecture.scale == 1 else init_deconv)(self.tail, RESIDUAL_GAIN)
        for i in steps:
            init_conv(self.down[i], 1.0)
            init_deconv(self.up[i], 1.0)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Restore a batch.

        Parameters
        ----------
        image
            N x channels x H x W, float32, nominally 0..1; H and W are multiples of the architecture's
            ``size_multiple``.
        condition
            N: what the network is told about each picture's level; None for a blind model.

        Returns
        -------
        Tensor
            The restored batch, in the dtype of `image`, H and W times the scale; not clipped.
        """
        base = enlarge(image, self.architecture.scale)
        return base + self.residual(stack_condition(image, condition)).to(image.dtype)

    def residual(self, x: Tensor) -> Tensor:
        """Predict what is to be added to the (enlarged) picture, from picture and condition planes stacked."""
        x = self.head(x)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = blocks(up(x).add_(skips.pop()))
        tail: Tensor = self.tail(x)
        return tail


def make_tail(architecture: Architecture) -> nn.Conv2d | nn.ConvTranspose2d:
    """Make the last layer: a convolution, or a transposed one that makes the large picture."""
    width, channels, kernel = architecture.widths[0], architecture.channels, architecture.tail_kernel
    if architecture.scale == 1:
        return nn.Conv2d(width, channels, kernel, padding=kernel // 2)
    return nn.ConvTranspose2d(width, channels, kernel, stride=architecture.scale)


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge N x C x H x W by the bicubic interpolation of `deconv_cli.images.resampling.upscale`."""
    if scale == 1:
        return image
    with torch.autocast(image.device.type, enabled=False):
        rows, columns = (
            torch.from_numpy(enlarging(side, scale).toarray()).to(image.device) for side in image.shape[2:]
        )
        return rows @ image @ columns.T


def stack_condition(image: Tensor, condition: Tensor | None) -> Tensor:
    """Append the condition (N) to the pictures (N x C x H x W) as a constant plane; None appends nothing."""
    if condition is None:
        return image
    return torch.cat((image, condition[:, None, None, None].expand(-1, 1, *image.shape[2:])), 1)


def init_conv(conv: nn.Module, gain: float) -> None:
    """Draw a convolution's kernel with standard deviation ``gain / sqrt(fan_in)`` and set its bias to zero."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.normal_(conv.weight, std=gain * conv.weight[0].numel() ** -0.5)
    _zero_bias(conv)


def init_deconv(deconv: nn.Module, gain: float) -> None:
    """Draw a transposed convolution whose kernel equals its stride, the same values for every phase.

    With equal phases the layer is nearest-neighbour upsampling behind a 1 x 1 convolution, so that it does not ripple
    before it has learned anything (Aitken et al. 2017, arXiv 1707.02937, whose initialisation does the same for
    sub-pixel convolution).
    """
    assert isinstance(deconv, nn.ConvTranspose2d)
    inputs, outputs, height, width = deconv.weight.shape
    kernel = torch.randn(inputs, outputs, 1, 1) * gain * inputs**-0.5
    with torch.no_grad():
        deconv.weight.copy_(kernel.expand(-1, -1, height, width))
    _zero_bias(deconv)


def _zero_bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
