"""A network to learn from instead of from clean pictures."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from deconv_cli.errors import UsageError
from deconv_cli.network.device import autocast, find_precision, training_layout
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.network.weights import Weights
from deconv_cli.training.config import TrainConfig


class Teacher:
    """What a network makes of degraded patches, as a target: the truth without the part that nobody can know.

    That part is most of the noise in the gradient, so that learning from a network takes far fewer steps than learning
    from pictures (distillation, Hinton et al. 2015, arXiv 1503.02531). At every step the network sees the patches in
    another orientation. On the average over these its results are those of its self-ensemble (Lim et al. 2017, arXiv
    1707.02921, section 3.4), which are better than its own: a network can learn from itself.

    Parameters
    ----------
    network
        The network to learn from.
    device, dtype
        Where it runs, and the number format of its layers.
    augment
        The augmentations of the training: an orientation that these do not make is not asked for.
    """

    def __init__(
        self, network: RestorationNetwork, device: torch.device, dtype: torch.dtype, augment: Collection[str]
    ) -> None:
        self.network = network.to(device, memory_format=training_layout(device)).eval()  # type: ignore[call-overload]
        self.device, self.dtype = device, dtype
        turns = range(4) if "rotate" in augment else range(1)
        mirrored = (False, True) if "flip" in augment else (False,)
        self.orientations = [(turn, mirror) for mirror in mirrored for turn in turns]

    @torch.no_grad()
    def __call__(self, degraded: Tensor, condition: Tensor | None, step: int) -> Tensor:
        """Return the target of square patches, N x C x S x S, in the orientation whose turn it is at a step."""
        turn, mirror = self.orientations[step % len(self.orientations)]
        turned = torch.rot90(degraded.flip(3) if mirror else degraded, turn, (2, 3))
        with autocast(self.device, self.dtype):
            restored = self.network(turned.contiguous(memory_format=training_layout(self.device)), condition)
        back = torch.rot90(restored, -turn, (2, 3))
        return back.flip(3) if mirror else back


def find_teacher(weights: Weights, config: TrainConfig, device: torch.device, *, self_ensemble: bool) -> Teacher:
    """Build the teacher of a training.

    Parameters
    ----------
    weights
        Its weights, of a restoration.
    config
        The training; without `self_ensemble` its augmentations do not matter.
    device
        Where it runs.
    self_ensemble
        Whether it sees the patches in all orientations that the training makes, or in one.

    Raises
    ------
    UsageError
        If it does something else than what is to be learned.
    """
    theirs, ours = weights.description, config.architecture
    shape = theirs.architecture
    if (theirs.task, shape.scale, shape.channels) != (config.task, ours.scale, ours.channels):
        raise UsageError(
            f"{theirs.name}: cannot teach {config.task} at scale {ours.scale} in {ours.channels} channels: it does"
            f" {theirs.task} at scale {shape.scale} in {shape.channels}"
        )
    if config.patch % (multiple := shape.size_multiple * shape.scale):
        raise UsageError(f"{theirs.name}: to learn from it, patch must be a multiple of {multiple}, its total stride")
    orientations = config.augment if self_ensemble else ()
    return Teacher(weights.build(), device, find_precision(config.precision, device), orientations)
