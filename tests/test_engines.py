"""Engines: they compute what the torch network does, and what happens when one does not work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deconv_cli.network.activations import ACTIVATIONS
from deconv_cli.network.description import UPSAMPLINGS, Architecture, Description
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.engines import ENGINES
from deconv_cli.network.graph import check_parameters
from deconv_cli.network.weights import Weights, to_parameters

PYRAMID = {"widths": (4, 6, 8), "blocks": (1, 2, 1)}
REDNET = {"widths": (6,), "blocks": (5,), "layout": "rednet"}
ARCHITECTURES = [
    *(Architecture(**PYRAMID, activation=name) for name in ACTIVATIONS),
    *(Architecture(**REDNET, activation=name) for name in ("relu", "prelu", "tanh")),
    *(Architecture(**PYRAMID, upsampling=kind, skips=skips) for kind in UPSAMPLINGS for skips in (True, False)),
    *(Architecture(**PYRAMID, condition_planes=0, scale=scale) for scale in (2, 3, 4)),
    Architecture(**{**REDNET, "blocks": (4,)}, scale=2, skips=False),
    Architecture(widths=(4,), blocks=(0,)),
]


def random_weights(architecture):
    """Weights whose every parameter matters: biases and slopes that are not what they start from."""
    torch.manual_seed(0)
    network = build_network(architecture, residual_gain=0.7)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.1, 0.4) if "activation" in name else torch.nn.init.normal_(parameter)
    description = Description("random", "denoise", architecture, (0.0, 75.0))
    return Weights(description, to_parameters(network.state_dict()))


def pictures(architecture, count=2, sides=(24, 40)):
    planes = architecture.channels + architecture.condition_planes
    return np.random.default_rng(0).random((count, planes, *sides), dtype=np.float32)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "torch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_an_engine_computes_what_torch_does(engine, architecture):
    pytest.importorskip(engine)
    weights = random_weights(architecture)
    loaded = ENGINES[engine].load(weights, "cpu", "fp32")
    for x in (pictures(architecture), pictures(architecture, 1, (32, 8))):
        expected = weights.build().residual(torch.from_numpy(x)).numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(loaded.run(x), expected, atol=2e-5 * np.abs(expected).max())


def test_parameters_that_do_not_fit_are_refused():
    weights = random_weights(Architecture(**PYRAMID))
    architecture, parameters = weights.description.architecture, dict(weights.parameters)
    check_parameters(architecture, parameters)
    for wrong in (
        {**parameters, "head.bias": np.zeros(5, np.float32)},
        {**parameters, "extra": np.zeros(0, np.float32)},
        {name: value for name, value in parameters.items() if name != "up.1.bias"},
    ):
        with pytest.raises(ValueError, match=r"head.bias|extra|up.1.bias"):
            check_parameters(architecture, wrong)
