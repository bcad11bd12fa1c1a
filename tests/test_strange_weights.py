"""Weights files from strangers run no code, allocate nothing beyond their size, and fail with one clear line."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from deconv_cli.errors import DeconvError
from deconv_cli.network.bundled import find_weights
from deconv_cli.network.description import Architecture, Description
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.restoration.restorer import Restorer


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
        ("condition_planes", 1.0),
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
    [
        ("level_range", "abc"),
        ("level_range", [0, float("nan")]),
        ("level_range", [1]),
        ("name", 5),
        ("name", "../escaped"),
        ("name", "end\0"),
        ("task", None),
    ],
)
def test_strange_descriptions_are_refused(tmp_path, tensors, header, where, value):
    header["description"][where] = value
    with pytest.raises(DeconvError, match=r"strange\.safetensors"):
        load_weights(written(tmp_path, tensors, json.dumps(header)))


def test_a_network_for_neither_gray_nor_colour_is_refused(tmp_path, header):
    architecture = Architecture((4,), (1,), channels=2)
    header["description"]["architecture"] = asdict(architecture)
    tensors = to_parameters(build_network(architecture).state_dict())
    with pytest.raises(DeconvError, match=r"strange\.safetensors.* 1 or 3 channels"):
        load_weights(written(tmp_path, tensors, json.dumps(header)))


@pytest.mark.parametrize("name", ["a  b", "Gemälde 'é' \"写真\"", "..", "line\nend \x1b[31m", os.fsdecode(b"\xff")])
def test_weights_may_be_called_what_files_are(tmp_path, tiny_weights, name):
    weights = load_weights(tiny_weights)
    path = tmp_path / f"{name}.safetensors"
    save_weights(path, replace(weights, description=replace(weights.description, name=path.stem)))
    restorer = Restorer(path, precision="fp32", engine="openvino")
    assert restorer.description.name == name
    assert restorer.restore(np.zeros((8, 8), np.uint8), noise_level=5).engine == "openvino"


@pytest.mark.parametrize("part", ["recipe", "scores"])
@pytest.mark.parametrize("value", [[1, 2], "text", None])
def test_strange_recipes_and_scores_are_refused(tmp_path, tensors, header, part, value):
    header[part] = value
    with pytest.raises(DeconvError, match=rf"strange\.safetensors.*{part}"):
        load_weights(written(tmp_path, tensors, json.dumps(header)))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_a_strange_quantization_is_refused(tmp_path, shape):
    source = find_weights("denoise-int8")
    with safe_open(source, "numpy") as file:
        tensors, text = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["deconv"]  # noqa: SIM118
    name = next(name for name in tensors if name.endswith(".input"))
    tensors[name] = np.ones(shape, np.float32)
    with pytest.raises(DeconvError, match=r"strange\.safetensors: damaged weights"):
        load_weights(written(tmp_path, tensors, text))


@pytest.mark.parametrize(
    ("task", "planes", "scale"), [("decompress", 1, 1), ("denoise", 0, 1), ("denoise", 1, 2), ("sr", 0, 7), ("?", 1, 1)]
)
def test_a_network_of_another_shape_than_its_task_has_is_not_run(run, tmp_path, task, planes, scale):
    architecture = Architecture((4,), (1,), condition_planes=planes, scale=scale)
    path, parameters = tmp_path / "strange.safetensors", to_parameters(build_network(architecture).state_dict())
    save_weights(path, Weights(Description("strange", task, architecture, (0.0, 75.0)), parameters))
    with pytest.raises(DeconvError, match=r"strange\.safetensors"):
        Restorer(path)
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    ran = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--weights", path)
    assert ran.code == 2
    assert f"error: {path}: not a network for a task" in ran.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("restore", "PICTURES", "out", "--weights", "FILE"),
        ("restore", "PICTURES/in.png", "-", "--weights", "FILE"),
        ("bench", "PICTURES", "--weights", "FILE"),
        ("bench", "--speed", "--weights", "FILE"),
        ("classify", "PICTURES", "--weights", "FILE"),
        ("compress", "FILE", "PICTURES", "--quantize", "int8"),
        ("export", "FILE"),
        ("models", "show", "FILE"),
        ("train", "PICTURES", "--steps", "1", "--init", "FILE"),
        ("train", "PICTURES", "--steps", "1", "--teacher", "FILE"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("content", [b"damaged", save({}, {"of": "another program"})], ids=["damaged", "foreign"])
def test_no_command_begins_with_weights_that_are_none(run, tmp_path, monkeypatch, command, content):
    """They are part of the request, not one of many inputs: nothing is done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.safetensors").write_bytes(content)
    (tmp_path / "pictures").mkdir()
    for name in ("in.png", "other.png"):
        Image.effect_noise((128, 128), 40).save(tmp_path / "pictures" / name)
    before = sorted(tmp_path.rglob("*"))
    places = {"FILE": "strange.safetensors", "PICTURES": "pictures", "PICTURES/in.png": "pictures/in.png"}
    ran = run(*(places.get(word, word) for word in command))
    assert ran.code == 2, ran.stderr
    assert "error: strange.safetensors: " in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


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
