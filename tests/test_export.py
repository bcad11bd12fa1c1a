"""Exported models: they run elsewhere, say what they are, and are not written if they compute something else."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from deconv_cli.errors import DeconvError
from deconv_cli.network import export as export_module
from deconv_cli.network.bundled import bundled_weights
from deconv_cli.network.description import Architecture, Description
from deconv_cli.network.device import has_native_int8
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.restoration.restorer import Restorer

DOCS = Path(__file__).resolve().parents[1] / "docs"
onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(path, x):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]


def run_openvino(path, x):
    import openvino

    # Where a processor does not add up eight-bit products exactly OpenVINO's kernels saturate (docs/export.md); there
    # the model is run in float on its rounded numbers, to tell that it is the right one.
    in_float = {} if has_native_int8() else {"LP_TRANSFORMS_MODE": "NO"}
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **in_float})([x])[0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_the_file_that_is_compared_is_not_mapped_when_it_is_removed(tmp_path, tiny_weights, monkeypatch):
    mapped, compare = [], export_module.compare

    def look(*arguments):
        mapped.extend(line for line in Path("/proc/self/maps").read_text().splitlines() if "model.bin" in line)
        return compare(*arguments)

    monkeypatch.setattr(export_module, "compare", look)
    export_module.export(load_weights(tiny_weights), tmp_path / "m.xml", "openvino", "fp32")
    assert not mapped


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("model_format", "suffix", "runs"), [("onnx", "onnx", run_onnx), ("openvino", "xml", run_openvino)]
)
def test_a_model_runs_elsewhere_at_every_size(run, tmp_path, tiny_weights, model_format, suffix, runs, precision):
    out = tmp_path / f"model.{suffix}"
    ran = run("export", tiny_weights, "--format", model_format, "--precision", precision, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["precision"] == precision
    assert [Path(file).exists() for file in ran.json["files"]] == [True] * (2 if model_format == "openvino" else 1)
    assert ran.json["difference"].keys() == {"random", "photograph"}
    network = load_weights(tiny_weights).build()
    for shape in ((1, 4, 16, 24), (2, 4, 40, 8)):
        x = np.random.default_rng(1).random(shape, dtype=np.float32)
        expected = network.residual(torch.from_numpy(x)).numpy()
        worst = np.abs(runs(out, x) - expected).max() / np.abs(expected).max()
        assert worst < {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2}[precision]
    assert {"fp32": 0, "fp16": 1e-6, "bf16": 1e-4}[precision] <= worst


@pytest.mark.parametrize(("model_format", "suffix"), [("onnx", "onnx"), ("openvino", "xml")])
def test_a_network_of_one_channel_is_exported(run, tmp_path, model_format, suffix):
    torch.manual_seed(0)
    architecture = Architecture(widths=(4, 6), blocks=(1, 1), channels=1)
    parameters = to_parameters(build_network(architecture).state_dict())
    source = tmp_path / "gray.safetensors"
    save_weights(source, Weights(Description("gray", "denoise", architecture, (0.0, 75.0)), parameters))
    ran = run("export", source, "--format", model_format, "--out", tmp_path / f"model.{suffix}", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["difference"].keys() == {"random", "photograph"}


@pytest.mark.parametrize(("suffix", "runs"), [("onnx", run_onnx), ("xml", run_openvino)])
def test_quantized_weights_stay_in_int8(run, tmp_path, suffix, runs):
    out, model_format = tmp_path / f"model.{suffix}", "onnx" if suffix == "onnx" else "openvino"
    ran = run("export", "denoise-int8", "--format", model_format, "--out", out, "--json")
    assert (ran.code, ran.json["precision"]) == (0, "int8")
    kernels = out if suffix == "onnx" else out.with_suffix(".bin")
    weights = load_weights(bundled_weights()["denoise-int8"].path)
    in_int8 = sum(weights.parameters[f"{name}.weight"].size for name in weights.quantization)
    in_float = sum(array.size for array in weights.parameters.values()) - in_int8
    # The scales of the kernels, and the graph.
    assert kernels.stat().st_size < 1.1 * (in_int8 + 4 * in_float)
    x = np.random.default_rng(1).random((1, 4, 32, 40), dtype=np.float32)
    expected = weights.build().residual(torch.from_numpy(x)).detach().numpy()
    difference = np.abs(runs(out, x) - expected) * 255
    assert difference.max() < 4
    assert difference.mean() < 0.3


def test_int8_is_judged_by_most_samples_and_not_by_the_one_that_was_rounded_the_other_way(tiny_weights, monkeypatch):
    weights = load_weights(tiny_weights)
    network = weights.build()

    def exact(x):
        return network.residual(torch.from_numpy(x)).detach().numpy()

    def flipped(x):
        residual = exact(x)
        residual[0, 0, 40, 40:46] += 12 / 255
        return residual

    assert export_module.compare(weights, flipped, "int8")["random"] == pytest.approx(12, abs=0.1)
    monkeypatch.setattr(export_module, "has_native_int8", lambda: False)
    for wrong in (
        lambda x: exact(x)[:, ::-1],
        lambda x: exact(x) + 3 / 255,
        lambda x: 1.5 * exact(x),
        lambda x: np.where(np.arange(x.shape[3]) == 0, 1, exact(x)),
        lambda x: exact(x) * (1 if len(x) > 1 else np.nan),
    ):
        with pytest.raises(DeconvError, match=r"in int8 differs .* AVX2 alone, such as this one; nothing was written"):
            export_module.compare(weights, wrong, "int8")


def test_kernels_take_half_the_bytes_in_half_precision(run, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        out = tmp_path / f"{precision}.onnx"
        assert run("export", "denoise", "--precision", precision, "--out", out).code == 0
        sizes[precision] = out.stat().st_size
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.02)


def test_a_model_says_what_it_is(run, tmp_path, tiny_weights):
    out = tmp_path / "model.onnx"
    assert run("export", tiny_weights, "--out", out).code == 0
    weights = load_weights(tiny_weights)
    said = onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map
    assert said["name"] == "tiny"
    assert said["level_range"] == "0 75"
    assert said["size_multiple"] == "4"
    assert said["weights_sha256"] == weights.sha256
    assert json.loads(said["description"]) == json.loads(json.dumps(weights.description.to_dict()))
    import openvino

    assert run("export", tiny_weights, "--format", "openvino", "--out", tmp_path / "model.xml").code == 0
    model = openvino.Core().read_model(tmp_path / "model.xml")
    assert model.get_rt_info(["deconv", "weights_sha256"]).astype(str) == weights.sha256


def test_what_cannot_be_exported_is_refused(run, tmp_path, tiny_weights, monkeypatch):
    out = tmp_path / "model.onnx"
    for options, message in (
        (("--precision", "int8"), "not quantized; deconv compress"),
        (("--precision", "fp64"), "unknown precision"),
        (("--format", "tflite"), "unknown format"),
        (("--format", "openvino"), "ends in .xml"),
        (("--out", tmp_path / "nowhere" / "model.onnx"), "a folder that exists"),
    ):
        ran = run("export", tiny_weights, "--out", out, *options)
        assert ran.code == 2, options
        assert message in ran.stderr
    out.write_bytes(b"mine")
    assert "--overwrite" in run("export", tiny_weights, "--out", out).stderr
    monkeypatch.setitem(export_module.TOLERANCES, "bf16", (1e-3, 1e-3))
    ran = run("export", tiny_weights, "--out", out, "--precision", "bf16", "--overwrite")
    assert ran.code == 1
    assert "differs from torch" in ran.stderr
    assert out.read_bytes() == b"mine"


def test_a_strangers_name_does_not_lead_out_of_the_folder(run, tmp_path, tiny_weights, monkeypatch):
    folder, file = tmp_path / "here", tmp_path / "strange.safetensors"
    folder.mkdir()
    monkeypatch.chdir(folder)
    data = tiny_weights.read_bytes()
    file.write_bytes(data.replace(rb"\"name\": \"tiny\"", rb"\"name\": \"../e\""))
    assert file.read_bytes() != data
    ran = run("export", file)
    assert ran.code == 2
    assert f"error: {file}: " in ran.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"here", "strange.safetensors"}


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
@pytest.mark.parametrize("model_format", ["onnx", "openvino"])
def test_names_need_not_be_utf8(run, tmp_path, tiny_weights, monkeypatch, model_format):
    monkeypatch.chdir(tmp_path)
    name, weights = os.fsdecode(b"Gem\xe4lde"), load_weights(tiny_weights)
    file = Path(f"{name}.safetensors")
    save_weights(file, dataclasses.replace(weights, description=dataclasses.replace(weights.description, name=name)))
    ran = run("export", file, "--format", model_format, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["files"][0] == f"{name}-fp32{export_module.SUFFIXES[model_format]}"
    assert export_module.metadata(load_weights(file))["name"] == "Gem?lde"
    assert all(Path(written).exists() for written in ran.json["files"])


def test_the_documented_script_restores_a_picture(run, tmp_path, tiny_weights, monkeypatch):
    noisy = data.chelsea()[60:101, 100:150]
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noisy).save("in.png")
    assert run("export", tiny_weights, "--out", "denoise-fp32.onnx").code == 0
    (script,) = re.findall(r"```python\n(.*?onnxruntime.*?)```", (DOCS / "export.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line and not line.startswith(("import", "from", "#"))]) <= 10
    exec(compile(script, "docs/export.md", "exec"), {})
    expected = Restorer(tiny_weights, precision="fp32").restore(noisy, noise_level=25).pixels
    assert np.abs(np.asarray(Image.open("out.png")).astype(int) - expected).max() <= 1
