"""What a training starts from that starts from the weights of another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from deconv_cli.errors import UsageError
from deconv_cli.network.description import Architecture
from deconv_cli.network.weights import load_weights
from deconv_cli.training.checkpoint import new_state
from deconv_cli.training.config import TrainConfig


def initial_parameters(path: Path, config: TrainConfig) -> dict[str, Tensor]:
    """Read the parameters to start from.

    A network may start from another task's of the same widths: a blind one from a conditioned one, one that enlarges
    from one of another scale (the last layer is new), one of a single channel from one of three, to which it does the
    same as that to three equal ones, one with another activation, and one with more or wider blocks, pruned or not
    (blocks beyond those are new, and near the identity; what is added to a block changes nothing yet).

    Raises
    ------
    UsageError
        If the network asked for cannot start from them.
    DeconvError
        If they cannot be read.
    """
    weights = load_weights(path)
    if weights.description.classes:
        raise UsageError(f"{path}: these weights tell classes apart; only those of a restoration can be started from")
    theirs, ours = weights.description.architecture, config.architecture
    may_differ = ("condition_planes", "scale", "channels", "activation", "blocks", "inner")
    free = {name: getattr(ours, name) for name in may_differ}
    alike = theirs.widths == ours.widths and dataclasses.replace(theirs, **free) == ours
    blocks = ours.residual_blocks
    grown = all(name in blocks and width <= blocks[name][1] for name, (_, width) in theirs.residual_blocks.items())
    larger = theirs.condition_planes >= ours.condition_planes and theirs.channels >= ours.channels
    if not (alike and grown and larger):
        raise UsageError(f"{path}: its network is {theirs}, from which the {ours} asked for cannot start")
    taken = {name: torch.from_numpy(array) for name, array in weights.parameters.items()}
    if ours.channels < theirs.channels:
        _use_one_channel(taken, theirs)
    taken["head.weight"] = taken["head.weight"][:, : ours.channels + ours.condition_planes]
    if theirs.scale != ours.scale:
        del taken["tail.weight"], taken["tail.bias"]
    new = new_state(config, torch.device("cpu")).network.state_dict()
    for name, (_, width) in theirs.residual_blocks.items():
        if width < blocks[name][1]:
            _widen(taken, new, name, width)
    # Of the activations only prelu has parameters.
    return {name: taken.get(name, new[name]) for name in new}


def _widen(parameters: dict[str, Tensor], new: dict[str, Tensor], block: str, width: int) -> None:
    """Give a block of some inner width the further channels that it is to have: new ones, which are not used yet."""
    for name in (f"{block}.conv1.weight", f"{block}.conv1.bias"):
        parameters[name] = torch.cat((parameters[name], new[name][width:]))
    name = f"{block}.conv2.weight"
    parameters[name] = torch.cat((parameters[name], torch.zeros_like(new[name][:, width:])), 1)


def _use_one_channel(parameters: dict[str, Tensor], architecture: Architecture) -> None:
    """Turn the first and last layer into those that see one channel instead of equal ones, and make their mean."""
    head, colours = parameters["head.weight"], architecture.channels
    parameters["head.weight"] = torch.cat((head[:, :colours].sum(1, keepdim=True), head[:, colours:]), 1)
    transposed = architecture.scale > 1 or architecture.layout == "rednet"
    parameters["tail.weight"] = parameters["tail.weight"].mean(int(transposed), keepdim=True)
    parameters["tail.bias"] = parameters["tail.bias"].mean(0, keepdim=True)
