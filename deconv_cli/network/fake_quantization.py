"""Convolutions in eight bits, as torch computes them: in float, on rounded numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from deconv_cli.network.quantization import KERNEL_LEVELS, LEVELS, SMALLEST_SCALE, Quantization

Convolution = nn.Conv2d | nn.ConvTranspose2d


class FakeQuantized(nn.Module):
    """A convolution on rounded inputs, and on a rounded kernel while that is trained.

    Gradients pass the rounding as if it were not there, where an input is within the range (Bengio et al. 2013,
    arXiv 1308.3432; Jacob et al. 2018, arXiv 1712.05877).

    Parameters
    ----------
    layer
        The convolution, whose parameters it shares.
    quantization
        What inputs are rounded to.
    round_kernel
        Round the kernel as well, by its own largest values; leave it out if it is rounded already.
    """

    def __init__(self, layer: Convolution, quantization: Quantization, *, round_kernel: bool) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        assert isinstance(layer.padding, tuple)
        self.stride, self.padding = layer.stride, layer.padding
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        self.input_scale, self.zero_point = quantization.input_scale, int(quantization.zero_point)
        self.round_kernel = round_kernel

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W as the convolution does."""
        inputs = torch.fake_quantize_per_tensor_affine(x.float(), self.input_scale, self.zero_point, 0, LEVELS)
        weight = round_kernel(self.weight, axis=int(self.transposed)) if self.round_kernel else self.weight
        convolve = functional.conv_transpose2d if self.transposed else functional.conv2d
        return convolve(inputs.to(x.dtype), weight, self.bias, self.stride, self.padding)


def round_kernel(kernel: Tensor, axis: int) -> Tensor:
    """Round a kernel to 255 values around zero for each output, which are on `axis`."""
    axes = [other for other in range(4) if other != axis]
    scales = (kernel.detach().abs().amax(axes).float() / KERNEL_LEVELS).clamp_min(SMALLEST_SCALE)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(kernel, scales, zeros, axis, -KERNEL_LEVELS, KERNEL_LEVELS)
    return rounded


def fake_quantize(network: nn.Module, quantization: Mapping[str, Quantization], *, round_kernels: bool) -> None:
    """Let the named layers of a network run on rounded inputs, in place; its parameters keep their names."""
    for name, how in quantization.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, Convolution)
        network.set_submodule(name, FakeQuantized(layer, how, round_kernel=round_kernels))
