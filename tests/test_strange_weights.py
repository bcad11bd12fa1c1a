"""Weights files from strangers run no code, allocate nothing beyond their size, and fail with one clear line."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
import torch
from safetensors.numpy import save

from deconv_cli.errors import DeconvError
from deconv_cli.network.weights import load_weights


@pytest.fixture
def header(tiny_weights):
    data = tiny_weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["deconv"])


@pytest.fixture
def tensors(tiny_weights):
    return dict(load_weights(tiny_weights).parameters)


def written(tmp_path, tensors, text):
    path = tmp_path / "strange.safetensors"
    path.write_bytes(save(tensors, {"deconv": text}))
    return path


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("widths", [10**9, 10**9, 10**9]),
        ("widths", [4.0, 6.0, 8.0]),
        ("widths", ["4", 6, 8]),
        ("widths", [True, 6, 8]),
        ("widths", [1] * 60),
        ("widths", []),
        ("widths", 7),
        ("blocks", [10**12, 1, 1]),
        ("blocks", [1, 1, -1]),
        ("scale", 10**6),
        ("scale", 2.5),
        ("channels", 10**9),
        ("activation", "__import__('os').system('true')"),
        ("layout", "other"),
        ("nonsense", 1),
    ],
    ids=str,
)
def test_strange_architectures_are_refused_before_they_cost_anything(tmp_path, tensors, header, where, value):
    header["description"]["architecture"][where] = value
    if where == "widths" and isinstance(value, list):
        header["description"]["architecture"]["blocks"] = [0] * len(value)
    path = written(tmp_path, tensors, json.dumps(header))
    tracemalloc.start()
    with pytest.raises(DeconvError, match=r"strange\.safetensors") as caught:
        load_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "value"),
    [("level_range", "abc"), ("level_range", [0, float("nan")]), ("level_range", [1]), ("name", 5), ("task", None)],
)
def test_strange_descriptions_are_refused(tmp_path, tensors, header, where, value):
    header["description"][where] = value
    with pytest.raises(DeconvError, match=r"strange\.safetensors"):
        load_weights(written(tmp_path, tensors, json.dumps(header)))


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "null", '"text"', '{"format": []}', '{"format": 1}', "{"])
def test_strange_headers_are_refused(tmp_path, tensors, text):
    with pytest.raises(DeconvError, match=r"strange\.safetensors"):
        load_weights(written(tmp_path, tensors, text))


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "strange.safetensors"
    torch.save({"state": torch.zeros(3)}, path)
    with pytest.raises(DeconvError, match="not a weights file"):
        load_weights(path)


def test_damage_gives_weights_or_a_one_line_error(tmp_path, tiny_weights):
    data, rng = tiny_weights.read_bytes(), random.Random(0)
    path = tmp_path / "damaged.safetensors"
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 3))):
            damaged[rng.randrange(min(len(data), rng.choice((16, 1500, len(data)))))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
        message = ""
        try:
            load_weights(path)
        except DeconvError as error:
            message = str(error)
        assert "\n" not in message
