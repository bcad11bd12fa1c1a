"""The network: shapes, initialisation, the promises of its description, and its file."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.network.activations import ACTIVATIONS, find_activation
from deconv_cli.network.description import UPSAMPLINGS, Architecture, Description
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters

pyramids = st.builds(
    lambda levels, skips, upsampling: Architecture(
        tuple(w for w, _ in levels), tuple(b for _, b in levels), skips=skips, upsampling=upsampling
    ),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(UPSAMPLINGS),
)
rednets = st.builds(
    lambda width, layers, skips: Architecture((width,), (layers,), layout="rednet", skips=skips),
    st.integers(1, 5),
    st.integers(1, 6),
    st.booleans(),
)


def pruned(architecture):
    """Architectures whose blocks are of other widths inside."""
    count = len(architecture.residual_blocks)
    inner = st.lists(st.integers(1, 6), min_size=count, max_size=count)
    return inner.map(lambda widths: dataclasses.replace(architecture, inner=tuple(widths)))


architectures = st.one_of(pyramids, pyramids.flatmap(pruned), rednets)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains(name):
    torch.manual_seed(0)
    network = build_network(Architecture(widths=(4, 8), blocks=(1, 1), activation=name))
    x = torch.rand(2, 3, 16, 24)
    y = network(x, torch.full((2,), 0.1))
    assert y.shape == x.shape
    y.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    assert network.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"none", "sigmoid", "tanh"}))
def test_gain_keeps_the_scale_of_the_signal(name):
    """Sixteen convolutions with the activation between them neither fade nor blow up."""
    torch.manual_seed(0)
    x = torch.randn(4, 512)
    activation = find_activation(name)
    for _ in range(16):
        weight = torch.randn(512, 512) * activation.gain / 512**0.5
        x = activation.build()(x) @ weight
    assert 0.3 < x.std() < 3


def test_a_matched_sigmoid_is_a_tanh():
    """Gain 4 and the bias that takes out the mean make of sigmoid layers tanh layers of gain 1."""
    torch.manual_seed(0)
    sigmoid, tanh = (
        build_network(Architecture((6,), (4,), activation=name, layout="rednet")) for name in ("sigmoid", "tanh")
    )
    x = torch.randn(1, 6, 12, 12)
    for ours, theirs in zip(sigmoid.encoder, tanh.encoder, strict=True):
        theirs.load_state_dict({"weight": ours.weight / 4, "bias": torch.zeros(6)})
    ours, theirs = torch.sigmoid(2 * x), torch.tanh(x)
    for a, b in zip(sigmoid.encoder, tanh.encoder, strict=True):
        ours, theirs = torch.sigmoid(a(ours)[..., 1:-1, 1:-1]), torch.tanh(b(theirs)[..., 1:-1, 1:-1])
    assert torch.allclose(ours, (1 + theirs) / 2, atol=1e-5)


def test_the_classic_network_has_its_skips_where_the_paper_has_them():
    """RED30: seven skips, the first decoder layer taking the features of the fourteenth convolution."""
    network = build_network(Architecture((2,), (15,), activation="none", layout="rednet"))
    outputs = []
    for layer in (*network.encoder, *network.decoder):
        layer.register_forward_hook(lambda _, inputs, output: outputs.append((inputs[0], output)))
    network.residual(torch.rand(1, 4, 8, 8))
    encoded, decoded = outputs[:14], outputs[14:]
    for number in range(1, 14):
        given = decoded[number][0] - decoded[number - 1][1]
        expected = encoded[15 - number - 2][1] if number % 2 else torch.zeros_like(given)
        assert torch.allclose(given, expected, atol=1e-6)


def test_skips_can_be_left_out():
    for architecture in (Architecture((4, 4), (1, 1)), Architecture((4,), (6,), layout="rednet")):
        torch.manual_seed(0)
        network = build_network(architecture)
        without = build_network(dataclasses.replace(architecture, skips=False))
        without.load_state_dict(network.state_dict())
        x = torch.rand(1, 4, 8, 8)
        assert not torch.allclose(network.residual(x), without.residual(x))


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_upsampling_does_not_ripple_at_initialisation(upsampling):
    network = build_network(Architecture(widths=(4, 8, 8), blocks=(0, 0, 0), upsampling=upsampling))
    for up in network.up:
        flat = up(torch.randn(1, 8, 1, 1).expand(-1, -1, 6, 6))[..., 1:-1, 1:-1]
        assert (flat - flat[:, :, :1, :1]).abs().max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(architectures, st.integers(0, 2**31))
def test_nothing_beyond_the_influence_radius_has_influence(architecture, seed):
    """Exactly: a change outside an aligned block and its radius leaves the block's output bit for bit alike."""
    torch.manual_seed(seed)
    network = build_network(architecture).double()
    step, radius = architecture.size_multiple, architecture.influence_radius
    assert radius % step == 0
    side = step + 2 * radius + 2 * step
    x = torch.rand(1, 4, side, side, dtype=torch.float64)
    changed = torch.rand_like(x)
    inside = slice(step, side - step)
    changed[..., inside, inside] = x[..., inside, inside]
    core = slice(step + radius, step + radius + step)
    before, after = (network.residual(image)[..., core, core] for image in (x, changed))
    assert torch.equal(before, after)


def test_influence_reaches_almost_to_the_radius():
    """The radius is not a lazy over-estimate: the last aligned ring inside it has influence."""
    architecture = Architecture(widths=(4, 4, 4), blocks=(1, 1, 2), activation="none")
    torch.manual_seed(0)
    network = build_network(architecture).double()
    step, radius = architecture.size_multiple, architecture.influence_radius
    x = torch.rand(1, 4, step, step + 2 * radius, dtype=torch.float64)
    changed = x.clone()
    changed[..., :step] += 1
    core = slice(radius, radius + step)
    assert not torch.equal(network.residual(x)[..., core], network.residual(changed)[..., core])


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(),
        *(Architecture(upsampling=kind, activation="prelu") for kind in UPSAMPLINGS),
        Architecture((8, 12), (1, 2), activation="prelu", inner=(4, 5, 6, 7)),
        Architecture((16,), (10,), layout="rednet", activation="prelu"),
    ],
)
def test_multiply_adds_equal_those_of_the_layers(architecture):
    network = build_network(architecture)
    counted = 0

    def count(layer, _, output):
        nonlocal counted
        # A kernel of a convolution acts once an output pixel, one of a transposed convolution once an input pixel.
        stride = layer.stride[0] if isinstance(layer, torch.nn.ConvTranspose2d) else 1
        pixels = output[0, 0].numel() // stride**2
        counted += layer.weight.numel() * pixels

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    network.residual(torch.rand(1, 4, 64, 64))
    assert sum(parameter.numel() for parameter in network.parameters()) == architecture.parameters
    assert counted / 64**2 == pytest.approx(architecture.multiply_adds)


@pytest.mark.parametrize(
    "values",
    [
        {"widths": (8,), "blocks": (1, 1)},
        {"widths": (), "blocks": ()},
        {"widths": (0,), "blocks": (1,)},
        {"inner": (8,)},
        {"widths": (8,), "blocks": (1,), "inner": (0,)},
        {"widths": (8,), "blocks": (1,), "inner": (8,), "layout": "rednet"},
    ],
)
def test_impossible_architectures_are_refused(values):
    with pytest.raises(UsageError):
        Architecture(**values)


@settings(max_examples=10, deadline=None)
@given(architectures, st.sampled_from(sorted(ACTIVATIONS)))
def test_weights_survive_the_file(tmp_path_factory, architecture, activation):
    architecture = dataclasses.replace(architecture, activation=activation)
    network = build_network(architecture).eval()
    description = Description("some", "denoise", architecture, (0.0, 50.0))
    path = tmp_path_factory.mktemp("roundtrip") / "some.safetensors"
    save_weights(
        path, Weights(description, to_parameters(network.state_dict()), {"steps": 3}, {"psnr": 30.5}), dtype=np.float32
    )
    loaded = load_weights(path)
    assert loaded.description == description
    assert loaded.recipe == {"steps": 3}
    assert loaded.scores == {"psnr": 30.5}
    x = torch.rand(1, 4, architecture.size_multiple, architecture.size_multiple * 2)
    with torch.inference_mode():
        assert torch.equal(loaded.build().residual(x), network.residual(x))


def damaged(path):
    path.write_bytes(path.read_bytes()[:-100])


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def not_safetensors(path):
    path.write_bytes(b"\x80\x04 not safetensors at all")


def newer(path):
    edit_header(path, lambda header: header.update(format=99))


def other_shapes(path):
    edit_header(path, lambda header: header["description"]["architecture"].update(widths=[4, 6, 9]))


def unknown_activation(path):
    edit_header(path, lambda header: header["description"]["architecture"].update(activation="step"))


def absurdly_large(path):
    edit_header(path, lambda header: header["description"]["architecture"].update(widths=[10**6, 10**6, 10**6]))


def edit_header(path, edit):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["deconv"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(header)
    save_file(tensors, path, {"deconv": json.dumps(header)})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damaged, "damaged"),
        (foreign, "not written by deconv"),
        (not_safetensors, "not a weights file"),
        (newer, "newer deconv"),
        (other_shapes, "do not fit"),
        (unknown_activation, "unknown activation"),
        (absurdly_large, "do not fit"),
    ],
)
def test_bad_weights_are_refused_by_name(tmp_path, tiny_weights, harm, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    harm(path)
    with pytest.raises(DeconvError, match=message) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2**31)
)
def test_deconvolution_is_the_adjoint_of_convolution(inputs, outputs, kernel, stride, padding, seed):
    """<conv x, y> = <x, deconv y> for every kernel, stride and padding, with the same weights in both."""
    torch.manual_seed(seed)
    side = kernel + stride * 3
    x = torch.randn(1, inputs, side, side, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, kernel, kernel, dtype=torch.float64)
    forward = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    y = torch.randn_like(forward)
    missing = (side + 2 * padding - kernel) % stride
    back = torch.nn.functional.conv_transpose2d(y, weight, stride=stride, padding=padding, output_padding=missing)
    assert back.shape == x.shape
    assert (forward * y).sum().item() == pytest.approx((x * back).sum().item(), rel=1e-9, abs=1e-9)


def test_deconvolution_ripples_where_its_kernel_does_not_divide_by_the_stride():
    """A flat picture through kernel 3 and stride 2: the pixels get 1, 2 or 4 contributions in a fixed pattern."""
    flat = torch.ones(1, 1, 6, 6)
    uneven = torch.nn.functional.conv_transpose2d(flat, torch.ones(1, 1, 3, 3), stride=2)[0, 0, 2:-2, 2:-2]
    even = torch.nn.functional.conv_transpose2d(flat, torch.ones(1, 1, 2, 2), stride=2)[0, 0]
    assert sorted(uneven.unique().tolist()) == [1, 2, 4]
    assert torch.equal(uneven[::2, ::2], torch.full_like(uneven[::2, ::2], 4))
    assert even.unique().tolist() == [1]
