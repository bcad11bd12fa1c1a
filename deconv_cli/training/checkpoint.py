"""The whole state of a training in one safetensors file, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deconv_cli.errors import DeconvError
from deconv_cli.images import write_atomically
from deconv_cli.network.device import training_layout
from deconv_cli.network.encoder_decoder import RestorationNetwork, build_network
from deconv_cli.training.config import TrainConfig, config_from_dict
from deconv_cli.training.optimizer import build_optimizers

METADATA_KEY = "deconv-checkpoint"
FORMAT_VERSION = 1
COUNTERS = ("step", "skipped", "best", "seconds")


@dataclass
class TrainState:
    """What changes while training.

    Attributes
    ----------
    network
        The network being trained, float32.
    average
        Moving average of its parameters, by name.
    optimizers
        The optimisers, in the order of `build_optimizers`.
    step
        Steps done; also the position in the data, since a batch is a function of seed and step.
    skipped
        Steps left out because loss or gradient was not finite.
    best
        Highest validation PSNR so far, dB; minus infinity before there is one.
    seconds
        Time spent so far.
    init
        File name and SHA-256 of the weights that it started from; empty if from none, None if an earlier version of
        the program did not note it.
    """

    network: RestorationNetwork
    average: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    skipped: int = 0
    best: float = float("-inf")
    seconds: float = 0.0
    init: tuple[str, ...] | None = ()


def new_state(config: TrainConfig, device: torch.device, parameters: dict[str, Tensor] | None = None) -> TrainState:
    """Make the state at step 0, a function of the seed, or of the given parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(config.architecture, config.initialisation, config.residual_gain)
    if parameters is not None:
        network.load_state_dict(parameters)
    network.to(device, memory_format=training_layout(device))  # type: ignore[call-overload]
    average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    return TrainState(network, average, build_optimizers(network, config))


def save_checkpoint(path: Path, state: TrainState, config: TrainConfig, pictures: str) -> None:
    """Write network, average, optimisers and counters atomically; `pictures` is the fingerprint of the data."""
    from safetensors.torch import save

    tensors = {f"network/{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    for at, optimizer in enumerate(state.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{at}/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    counters = {name: getattr(state, name) for name in COUNTERS}
    header = {
        "format": FORMAT_VERSION,
        "config": config.to_dict(),
        "pictures": pictures,
        "init": state.init,
        "counters": {name: value if math.isfinite(value) else None for name, value in counters.items()},
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, {METADATA_KEY: json.dumps(header)}))


def read_config(path: Path) -> tuple[TrainConfig, str]:
    """Read the configuration and the fingerprint of the data from a checkpoint.

    Raises
    ------
    DeconvError
        If the file is missing, damaged or no checkpoint of this version.
    """
    _, header = _read(path)
    return config_from_dict(header["config"], str(path)), header["pictures"]


def load_checkpoint(path: Path, device: torch.device) -> TrainState:
    """Rebuild the state of a training. Nothing in the file is ever executed.

    Raises
    ------
    DeconvError
        If the file is missing, damaged or no checkpoint of this version.
    """
    tensors, header = _read(path)
    config = config_from_dict(header["config"], str(path))
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    try:
        state = new_state(config, device, parts["network"])
        state.average = {name: parts["average"][name].to(device) for name in state.average}
    except (KeyError, RuntimeError) as error:
        raise DeconvError(f"{path}: damaged checkpoint ({error})") from error
    for at, optimizer in enumerate(state.optimizers):
        values: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            owner, index, key = name.split("/")
            if int(owner) == at:
                values.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
    for name in COUNTERS:
        if (value := header["counters"][name]) is not None:
            setattr(state, name, value)
    state.init = None if header.get("init") is None else tuple(header["init"])
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DeconvError(f"{path}: there is no such checkpoint; give the checkpoint.safetensors of a training run")
    try:
        with safe_open(path, "pt") as file:
            # Earlier versions wrote an infinite PSNR, which JSON has no word for.
            header = json.loads((file.metadata() or {})[METADATA_KEY], parse_constant=lambda _: None)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DeconvError(f"{path}: not a checkpoint of a training, or a damaged one ({error})") from error
    if header.get("format") != FORMAT_VERSION:
        raise DeconvError(f"{path}: checkpoint of another version of deconv; start the training anew")
    return tensors, header
