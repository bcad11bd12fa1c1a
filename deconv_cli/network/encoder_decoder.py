"""The conv/deconv encoder-decoder with symmetric skips."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from deconv_cli.images.resampling import enlarging
from deconv_cli.network.activations import Activation, find_activation
from deconv_cli.network.description import KERNEL, Architecture

RESIDUAL_GAIN = 0.1
"""Gain of the last convolution of a residual branch: at initialisation a block is close to the identity."""


class ResidualBlock(nn.Module):
    """Convolution, activation, convolution, added to the input (He et al. 2016, without normalisation)."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, KERNEL, padding=KERNEL // 2)
        self.activation = find_activation(activation).build()
        self.conv2 = nn.Conv2d(inner, width, KERNEL, padding=KERNEL // 2)

    def initialise(self, activation: Activation, residual_gain: float) -> None:
        """Match the parameters to the activation; see `EncoderDecoder.initialise`."""
        init_conv(self.conv1, activation.gain)
        init_conv(self.conv2, residual_gain, activation.centre)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to the same shape."""
        residual: Tensor = self.conv2(self.activation(self.conv1(x)))
        return residual.add_(x)


class RestorationNetwork(nn.Module):
    """A network that predicts what is to be added to its input, enlarged by bicubic interpolation if it has a scale.

    Parameters
    ----------
    architecture
        The shape of the network. Parameters are PyTorch's defaults; `build_network` matches them to the activation.
    """

    tail: nn.Module

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

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
        tail: Tensor = self.tail(self.features(x))
        return tail

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer sees: N x widths[0] x H x W, from picture and condition planes stacked."""
        raise NotImplementedError

    def initialise(self, residual_gain: float) -> None:
        """Draw parameters that match the activation, from torch's generator.

        Parameters
        ----------
        residual_gain
            Gain of the last convolution of a residual branch, the network's own last layer included.
        """
        raise NotImplementedError


class EncoderDecoder(RestorationNetwork):
    """Convolutions encode, transposed convolutions decode, symmetric skips carry detail and gradients.

    The idea is RED-Net's (Mao, Shen and Yang 2016, arXiv 1606.08921), moved from full resolution to a pyramid:
    2 x 2 convolutions with stride 2 lead down, 2 x 2 transposed convolutions with stride 2 lead up, and the network
    predicts what is to be added to its input.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        widths, blocks = architecture.widths, architecture.blocks
        inner = iter(width for _, width in architecture.residual_blocks.values())

        def level(i: int) -> nn.Sequential:
            made = (ResidualBlock(widths[i], next(inner), architecture.activation) for _ in range(blocks[i]))
            return nn.Sequential(*made)

        steps = range(len(widths) - 1)
        self.head = nn.Conv2d(
            architecture.channels + architecture.condition_planes, widths[0], KERNEL, padding=KERNEL // 2
        )
        self.encoder = nn.ModuleList(level(i) for i in steps)
        self.down = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in steps)
        self.bottom = level(len(widths) - 1)
        self.up = nn.ModuleList(make_upsampling(architecture.upsampling, widths[i + 1], widths[i]) for i in steps)
        self.decoder = nn.ModuleList(level(i) for i in steps)
        self.tail = make_tail(architecture)

    def initialise(self, residual_gain: float) -> None:
        """Draw parameters that match the activation; see `RestorationNetwork.initialise`."""
        activation = find_activation(self.architecture.activation)
        init_conv(self.head, 1.0)
        (init_conv if self.architecture.scale == 1 else init_deconv)(self.tail, residual_gain)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.initialise(activation, residual_gain)
        for down, up in zip(self.down, self.up, strict=True):
            init_conv(down, 1.0)
            init_upsampling(up)

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer sees; see `RestorationNetwork.features`."""
        x = self.head(x)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            skip = skips.pop()
            x = blocks(up(x).add_(skip) if self.architecture.skips else up(x))
        return x


class RedNet(RestorationNetwork):
    """A stack of convolutions, a stack of transposed convolutions, a skip at every second layer, all at full size.

    The historical baseline: Mao, Shen and Yang 2016 (arXiv 1606.08921), whose RED30 is 15 + 15 layers of 64 channels.
    The features behind every second convolution are added to those of its mirror image among the transposed
    convolutions, before the activation.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width, layers, channels = architecture.widths[0], architecture.blocks[0], architecture.channels
        inputs = channels + architecture.condition_planes
        self.head = nn.Conv2d(inputs, width, KERNEL, padding=KERNEL // 2)
        self.encoder = nn.ModuleList(nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2) for _ in range(layers - 1))
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(width, width, KERNEL, padding=KERNEL // 2) for _ in range(layers - 1)
        )
        kernel, scale = architecture.tail_kernel, architecture.scale
        self.tail = nn.ConvTranspose2d(width, channels, kernel, stride=scale, padding=(kernel - scale) // 2)
        activation = find_activation(architecture.activation)
        self.activations = nn.ModuleList(activation.build() for _ in range(2 * layers - 1))

    def initialise(self, residual_gain: float) -> None:
        """Draw parameters that match the activation; see `RestorationNetwork.initialise`."""
        activation = find_activation(self.architecture.activation)
        init_conv(self.head, 1.0)
        for layer in (*self.encoder, *self.decoder):
            init_conv(layer, activation.gain, activation.centre)
        (init_conv if self.architecture.scale == 1 else init_deconv)(self.tail, residual_gain, activation.centre)

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer sees; see `RestorationNetwork.features`."""
        activations = iter(self.activations)
        skips = []
        for number, layer in enumerate((self.head, *self.encoder), 1):
            x = next(activations)(layer(x))
            if number % 2 == 0:
                skips.append(x)
        # The last convolution mirrors none of these: what is behind it goes into the first transposed one anyway.
        layers = self.architecture.blocks[0]
        if layers % 2 == 0:
            skips.pop()
        for number, layer in enumerate(self.decoder, 1):
            x = layer(x)
            if (layers - number) % 2 == 0:
                skip = skips.pop()
                x = x + skip if self.architecture.skips else x
            x = next(activations)(x)
        return x


NETWORKS: dict[str, type[RestorationNetwork]] = {"pyramid": EncoderDecoder, "rednet": RedNet}


def build_network(
    architecture: Architecture, initialisation: str = "matched", residual_gain: float = RESIDUAL_GAIN
) -> RestorationNetwork:
    """Make the network of an architecture, its parameters drawn from torch's generator.

    Parameters
    ----------
    architecture
        The shape of the network.
    initialisation
        ``matched`` to the activation, or PyTorch's ``default`` for every layer.
    residual_gain
        Gain of the last convolution of a residual branch in a matched initialisation; 0 starts from the identity.
    """
    network = NETWORKS[architecture.layout](architecture)
    if initialisation == "matched":
        network.initialise(residual_gain)
    return network


def make_upsampling(kind: str, inputs: int, outputs: int) -> nn.Module:
    """Make the layer that doubles the side; see `Architecture.upsampling`."""
    if kind == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2))
    if kind == "shuffle":
        return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2))
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


def init_upsampling(layer: nn.Module) -> None:
    """Initialise the layer that doubles the side, such that it does not ripple before it has learned anything."""
    if not isinstance(layer, nn.Sequential):
        init_deconv(layer, 1.0)
        return
    conv = layer[1] if isinstance(layer[0], nn.Upsample) else layer[0]
    assert isinstance(conv, nn.Conv2d)
    init_conv(conv, 1.0)
    if isinstance(layer[1], nn.PixelShuffle):
        with torch.no_grad():
            conv.weight.copy_(conv.weight[::4].repeat_interleave(4, 0))


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
        rows, columns = (_enlarging(side, scale, image.device) for side in image.shape[2:])
        return rows @ image @ columns.T


def stack_condition(image: Tensor, condition: Tensor | None) -> Tensor:
    """Append the condition (N) to the pictures (N x C x H x W) as a constant plane; None appends nothing."""
    if condition is None:
        return image
    return torch.cat((image, condition[:, None, None, None].expand(-1, 1, *image.shape[2:])), 1)


def init_conv(conv: nn.Module, gain: float, centre: float = 0.0) -> None:
    """Draw a kernel with standard deviation ``gain / sqrt(fan_in)``, and a bias that maps a picture of `centre` to 0.

    The layer is a convolution, or a transposed one with stride 1, which is a convolution with the mirrored kernel.
    """
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert conv.bias is not None
    output_axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    nn.init.normal_(conv.weight, std=gain * conv.weight.select(output_axis, 0).numel() ** -0.5)
    with torch.no_grad():
        axes = [axis for axis in range(4) if axis != output_axis]
        conv.bias.copy_(-centre * conv.weight.sum(axes))


def init_deconv(deconv: nn.Module, gain: float, centre: float = 0.0) -> None:
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
        assert deconv.bias is not None
        deconv.bias.copy_(-centre * kernel.sum((0, 2, 3)))


@functools.cache
@torch.inference_mode(mode=False)
def _enlarging(side: int, scale: int, device: torch.device) -> Tensor:
    """Return the matrix that enlarges a side, kept for good: a recorded step goes on reading it where it is."""
    return torch.from_numpy(enlarging(side, scale).toarray()).to(device)
