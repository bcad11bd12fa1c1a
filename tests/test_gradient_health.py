"""The measures of gradient health against networks whose health is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from deconv_cli.network.activations import ACTIVATIONS, find_activation
from deconv_cli.training.gradient_health import judge_ratio, measure_step, observed


def stack(activation, gain, layers=6):
    torch.manual_seed(0)
    modules = []
    for _ in range(layers):
        conv = nn.Conv2d(8, 8, 1, bias=False)
        nn.init.orthogonal_(conv.weight, gain)
        modules += [conv, find_activation(activation).build()]
    return nn.Sequential(*modules, nn.Conv2d(8, 8, 1))


def take_step(network, x, rate=0.0):
    def step():
        optimizer = torch.optim.SGD(network.parameters(), rate)
        optimizer.zero_grad()
        network(x).sum().backward()
        optimizer.step()
        return "result"

    return step


@pytest.mark.parametrize(("gain", "verdict"), [(1e-4, "vanishing"), (1.0, "healthy"), (1e4, "exploding")])
def test_the_ratio_follows_the_gain_of_the_layers(gain, verdict):
    """In a linear net the gradient of layer k is the product of all other layers: the tail makes the ratio."""
    network = stack("none", 1.0)
    network[-1].weight.data.copy_(gain * torch.eye(8)[:, :, None, None])
    result, health = measure_step(network, find_activation("none"), take_step(network, torch.randn(4, 8, 3, 3)))
    assert result == "result"
    norms = [float(layer.weight.grad.norm()) for layer in network if isinstance(layer, nn.Conv2d)]
    assert [layer.gradient for layer in health.layers] == pytest.approx(norms, rel=1e-4)
    assert health.first_over_last == pytest.approx(norms[0] / norms[-1], rel=1e-4)
    # The first one's gradient has the gain of the last layer, and the last one's has not.
    assert judge_ratio(health.first_over_last) == verdict


def test_updates_are_relative_and_gradients_are_those_before_clipping():
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    network[0].weight.data.fill_(2.0)

    def step():
        network(torch.ones(1, 1, 2, 2)).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        network[0].weight.data -= 0.5 * network[0].weight.grad

    _, health = measure_step(network, find_activation("none"), step)
    assert health.layers[0].gradient == pytest.approx(4.0)
    assert health.layers[0].update == pytest.approx(0.25, rel=1e-4)


def test_dead_units_are_those_that_are_never_on():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    network[0].weight.data.zero_()
    network[0].bias.data.copy_(torch.tensor([1.0, -1.0, -1.0, 2.0]))
    with torch.no_grad(), observed(network, find_activation("relu")) as seen:
        network(torch.randn(2, 3, 4, 4))
    (layer,) = seen
    assert layer.off == 0.5
    assert layer.slope == pytest.approx(0.5)
    assert layer.saturated is None


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_saturation_begins_where_the_slope_is_a_twentieth_of_its_largest(name):
    activation = find_activation(name)
    bound = activation.saturation
    z = torch.tensor([0.0, bound], requires_grad=True)
    activation.build()(z).sum().backward()
    assert z.grad[1] / z.grad[0] == pytest.approx(0.05, rel=1e-3)
    values = torch.tensor([0.0, 0.5 * bound, 1.01 * bound, -2 * bound]).reshape(1, 1, 2, 2)
    network = nn.Sequential(activation.build())
    with torch.no_grad(), observed(network, activation) as seen:
        network(values)
    assert seen[0].saturated == 0.5
    assert seen[0].off is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_that_of_finite_differences(name):
    activation = find_activation(name)
    network = nn.Sequential(activation.build())
    z = torch.randn(1, 2, 16, 16)
    with torch.no_grad(), observed(network, activation) as seen:
        network(z.clone())
    h, f = 1e-3, network[0].double()
    z = z.double()
    with torch.no_grad():
        expected = ((f(z + h) - f(z - h)) / (2 * h)).abs().mean()
    assert seen[0].slope == pytest.approx(float(expected), rel=1e-2)
    assert sum(seen[0].histogram) == pytest.approx(1, abs=1e-2)


def test_a_step_that_is_not_finite_is_called_so():
    network = stack("relu", 1.0)
    _, health = measure_step(network, find_activation("relu"), take_step(network, torch.full((1, 8, 2, 2), math.inf)))
    assert judge_ratio(health.first_over_last) == "not finite"
    assert "exploding" in health.warnings()
    assert health.to_dict()["first_over_last"] is None
