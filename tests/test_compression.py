"""Compression: what is pruned and rounded computes what it should, and costs what the report says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage import data

from deconv_cli.compression.calibration import draw_crops, mean_psnr
from deconv_cli.compression.calibration import run as run_network
from deconv_cli.compression.compress import Callbacks, Compressed, Compression, compress, refuse, training_config
from deconv_cli.compression.pruning import choose_channels, find_importance, prune
from deconv_cli.compression.quantization import best_range, calibrate, choose_layers, find_bias_errors, quantize
from deconv_cli.compression.report import measure
from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.network.bundled import find_weights
from deconv_cli.network.description import Architecture, Description
from deconv_cli.network.device import has_native_int8
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.engines import ENGINES
from deconv_cli.network.quantization import Quantization
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.restoration.restorer import Restorer, cached_restorer, restore
from deconv_cli.restoration.trial import Removed
from deconv_cli.tasks import find_task
from deconv_cli.training.data import PictureSet

DENOISE = find_task("denoise")
LEVELS = (15.0, 50.0)
RECIPE = {"batch": 2, "patch": 32, "gray_share": 0.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in {
        "astronaut": data.astronaut()[:96, 150:246],
        "chelsea": data.chelsea()[80:176, 100:196],
        "coffee": data.coffee()[100:196, 200:296],
    }.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def make_weights(architecture):
    torch.manual_seed(0)
    network = build_network(architecture, residual_gain=0.5)
    return Weights(
        Description("tiny", "denoise", architecture, (0.0, 75.0)), to_parameters(network.state_dict()), RECIPE
    )


@pytest.fixture(scope="module")
def weights():
    return make_weights(Architecture((16, 24), (1, 2), "leaky_relu_0.2"))


@pytest.fixture(scope="module")
def crops(weights, pictures):
    config = training_config(weights, Compression(quantize="int8"))
    return draw_crops(PictureSet(sorted(pictures.iterdir()), 32), config, DENOISE, LEVELS)


@pytest.fixture(scope="module")
def rounded(weights, crops):
    network = weights.build()
    return quantize(weights, calibrate(network, crops, DENOISE))


@pytest.fixture
def file(weights, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(path, weights, dtype=np.float32)
    return path


def stacked(sides=(32, 48)):
    x = np.random.default_rng(0).random((1, 4, *sides), dtype=np.float32)
    x[:, 3] = 25 / 255
    return x


def test_channels_that_do_nothing_are_the_ones_that_go(weights, crops):
    """What is left computes the same, where some channels had no influence."""
    dead = {"encoder.0.0": range(3, 11), "bottom.1": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 1, 3, 5, 7]}
    parameters = dict(weights.parameters)
    for name, channels in dead.items():
        kernel = parameters[f"{name}.conv2.weight"].copy()
        kernel[:, list(channels)] = 0
        parameters[f"{name}.conv2.weight"] = kernel
    weights = dataclasses.replace(weights, parameters=parameters)
    architecture = weights.description.architecture
    fraction = (18 * 16 * 8 + 18 * 24 * 16 / 4) / architecture.multiply_adds
    importance = find_importance(weights.build(), crops, DENOISE, "l1")
    pruned = prune(weights, choose_channels(architecture, importance, fraction))
    smaller = pruned.description.architecture
    assert smaller.inner == (8, 24, 8, 16)
    assert smaller.multiply_adds == pytest.approx((1 - fraction) * architecture.multiply_adds)
    x = torch.from_numpy(stacked())
    torch.testing.assert_close(pruned.build().residual(x), weights.build().residual(x))


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.45])
def test_a_fraction_is_reached_and_not_by_much_exceeded(fraction):
    architecture = Architecture((16, 24), (1, 2))
    rng = np.random.default_rng(0)
    importance = {name: rng.random(width) for name, (_, width) in architecture.residual_blocks.items()}
    kept = choose_channels(architecture, importance, fraction)
    inner = tuple(map(len, kept.values()))
    assert min(inner) >= 8
    assert all(width % 8 == 0 for width in inner)
    left = dataclasses.replace(architecture, inner=inner).multiply_adds / architecture.multiply_adds
    assert 1 - fraction - 18 * 16 * 8 / architecture.multiply_adds < left <= 1 - fraction


def test_the_range_that_rounds_best_clips_what_is_rare():
    even = np.random.default_rng(0).uniform(-1, 3, 20_000).astype(np.float32)
    assert best_range(even, -1, 3) == (-1, 3)
    low, high = best_range(even, -2, 6)
    assert -1.1 < low < -0.9
    assert 2.7 < high < 3.3
    assert best_range(np.zeros(5, np.float32), 0, 0) == (0, 0)


def test_layers_in_int8_lose_little_and_the_file_keeps_them(weights, rounded, crops, tmp_path):
    assert set(rounded.quantization) == {
        name.removesuffix(".weight")
        for name, array in weights.parameters.items()
        if array.ndim == 4 and not name.startswith(("head", "tail"))
    }
    before, after = (mean_psnr(each.build(), crops, DENOISE) for each in (weights, rounded))
    assert after != before
    assert after == pytest.approx(before, abs=0.1)

    path = tmp_path / "int8.safetensors"
    save_weights(path, rounded, dtype=np.float32)
    loaded = load_weights(path)
    assert path.stat().st_size < 0.5 * 4 * loaded.description.parameters
    x = torch.from_numpy(stacked())
    torch.testing.assert_close(loaded.build().residual(x), rounded.build().residual(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("upsampling", ["deconv", "resize", "shuffle"])
def test_engines_round_as_torch_does(name, upsampling, crops):
    pytest.importorskip(name)
    weights = make_weights(Architecture((8, 16), (1, 1), "leaky_relu_0.2", upsampling=upsampling))
    network = weights.build()
    rounded = quantize(weights, calibrate(network, crops, DENOISE))
    x = stacked()
    expected = rounded.build().residual(torch.from_numpy(x)).numpy()
    error = ENGINES[name].load(rounded, "cpu", "fp32").run(x) - expected
    loss = network.residual(torch.from_numpy(x)).numpy() - expected
    # A number half-way between two may be rounded either way.
    assert np.abs(error).mean() < 0.1 * np.abs(loss).mean()
    assert np.abs(error).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_computes_in_int8(rounded, precision):
    pytest.importorskip("openvino")
    compiled = ENGINES["openvino"].load(rounded, "cpu", precision)._request.get_compiled_model()
    nodes = compiled.get_runtime_model().get_ordered_ops()
    kinds = [str(node.get_rt_info()["primitiveType"].value) for node in nodes]
    if not any("avx512" in kind for kind in kinds):
        pytest.skip("kernels in int8 are named otherwise here")
    assert sum(kind.endswith("I8") and kind.startswith("brg") for kind in kinds) >= len(rounded.quantization) / 2


@torch.no_grad()
def test_sensitive_layers_stay_in_float(weights, crops):
    network = weights.build()
    quantization = calibrate(network, crops, DENOISE)
    # A layer that is told far too wide a range loses all detail.
    quantization["encoder.0.0.conv1"] = dataclasses.replace(quantization["encoder.0.0.conv1"], input_scale=0.5)
    # What the network makes is nearly the truth here, so that every error is a loss.
    truth = {level: run_network(network, batch, DENOISE).permute(0, 2, 3, 1).numpy() for level, batch in crops.items()}
    noise = np.random.default_rng(0).normal(0, 0.02, truth[15.0].shape).astype(np.float32)
    crops = {level: dataclasses.replace(batch, clean=truth[level] + noise) for level, batch in crops.items()}
    choice = choose_layers(network, quantization, crops, DENOISE, max_loss=0.2)
    assert choice.in_float[0] == "encoder.0.0.conv1"
    assert max(choice.sensitivity, key=choice.sensitivity.get) == "encoder.0.0.conv1"
    assert choice.loss <= 0.2
    assert choice.quantization
    assert not choose_layers(network, quantization, crops, DENOISE, max_loss=0).quantization


def test_corrected_biases_keep_the_means(weights, crops):
    """A coarse rounding moves the mean of a layer's outputs; the correction takes that back."""
    network = weights.build()
    how = calibrate(network, crops, DENOISE)["bottom.0.conv1"]
    quantization = {"bottom.0.conv1": dataclasses.replace(how, input_scale=how.input_scale * 40)}
    errors = find_bias_errors(network, quantization, crops, DENOISE)
    assert np.abs(errors["bottom.0.conv1"]).max() > 1e-3
    corrected = quantize(weights, quantization, errors)
    outputs = []
    for each in (network, quantize(weights, quantization).build(), corrected.build()):
        layer, seen = each.get_submodule("bottom.0.conv1"), []
        layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.mean((0, 2, 3))))
        mean_psnr(each, crops, DENOISE)
        outputs.append(torch.stack(seen).mean(0))
    expected, rounded, kept = outputs
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-4)
    assert (rounded - expected).abs().max() > 1e-3


def test_training_on_rounded_layers_wins_back_what_rounding_costs(file, pictures, tmp_path):
    """Ranges and kernels in eight bits, trained through: the result is int8 and runs."""
    out = tmp_path / "out.safetensors"
    result = compress(file, [pictures], out, Compression(quantize="int8", finetune=4, levels=LEVELS, max_loss=5))
    assert result is not None
    loaded = load_weights(out)
    assert loaded.quantization.keys() == result.weights.quantization.keys() != set()
    assert loaded.recipe["compression"]["finetune"] == 4
    moved = loaded.parameters["head.weight"] - load_weights(file).parameters["head.weight"]
    assert 0 < np.abs(moved).max() < 0.05
    picture = data.chelsea()[:40, :56]
    assert Restorer(out).restore(picture, noise_level=15).pixels.shape == picture.shape


def test_pruned_and_rounded_from_the_command_line(run, file, pictures, tmp_path):
    out = tmp_path / "small.safetensors"
    options = ("--prune", 0.3, "--quantize", "int8", "--finetune", 3, "--max-loss", 5, "--levels", "15,50")
    ran = run("compress", file, pictures, *options, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    before, after = (ran.json["networks"][name] for name in ("before", "after"))
    assert after["multiply_adds"] <= 0.7 * before["multiply_adds"]
    assert after["bytes"] < before["bytes"] / 2
    assert (before["in_int8"], after["in_int8"] > 0.8) == (0, True)
    assert {row["level"] for row in ran.json["scores"]["rows"]} == {15, 50}
    saved = json.loads((out.with_suffix("") / "report.json").read_text())
    assert saved["networks"]["after"]["bytes"] == out.stat().st_size
    with Image.open(out.with_suffix("") / "report.png") as plot:
        assert plot.width > 500
    noisy = tmp_path / "noisy.png"
    Image.fromarray(data.chelsea()[:40, :56]).save(noisy)
    assert run("restore", "--weights", out, noisy, tmp_path / "restored.png").code == 0

    again = run("compress", out, pictures, "--quantize", "int8", "--out", tmp_path / "again.safetensors")
    assert again.code == 2
    assert "int8 already" in again.stderr


@pytest.mark.parametrize(("task", "scale"), [("decompress", 1), ("sr", 2)])
def test_blind_and_enlarging_networks_are_compressed_too(pictures, tmp_path, task, scale):
    torch.manual_seed(0)
    architecture = Architecture((16, 24), (1, 1), condition_planes=0, scale=scale)
    parameters = to_parameters(build_network(architecture, residual_gain=0.5).state_dict())
    levels = (float(scale),) * 2 if scale > 1 else (5.0, 95.0)
    source, out = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_weights(source, Weights(Description("blind", task, architecture, levels), parameters, RECIPE))
    assert compress(source, [pictures], out, Compression(prune=0.2, quantize="int8", max_loss=50))
    report = measure(source, out, sorted(pictures.iterdir())[:1], (float(scale),) if scale > 1 else (20.0,))
    before, after = report.networks["before"], report.networks["after"]
    assert after.multiply_adds <= 0.8 * before.multiply_adds
    assert after.in_int8 > 0.8
    assert 0 < report.flat_shift < 255


def test_the_file_tells_the_whole_chain_of_compressions(file, pictures, tmp_path):
    pruned, out = tmp_path / "pruned.safetensors", tmp_path / "out.safetensors"
    assert compress(file, [pictures], pruned, Compression(prune=0.2, levels=LEVELS))
    assert compress(pruned, [pictures], out, Compression(quantize="int8", levels=LEVELS, max_loss=50))
    last = load_weights(out).recipe["compression"]
    assert (last["quantize"], last["prune"], last["of"]) == ("int8", 0, load_weights(pruned).sha256)
    assert last["earlier"] == load_weights(pruned).recipe["compression"]
    assert (last["earlier"]["prune"], last["earlier"]["of"]) == (0.2, load_weights(file).sha256)


def test_a_stopped_compression_writes_no_weights(file, pictures, tmp_path):
    out = tmp_path / "out.safetensors"
    wanted = Compression(prune=0.2, finetune=50)
    assert compress(file, [pictures], out, wanted, callbacks=Callbacks(stop=lambda: True)) is None
    assert not out.exists()
    assert (tmp_path / "out" / "pruned" / "checkpoint.safetensors").exists()


@pytest.fixture
def short_timing(monkeypatch):
    monkeypatch.setattr("deconv_cli.compression.report.SPEED_SIDES", (64, 96))


@pytest.mark.parametrize(
    ("module", "name", "written"),
    [
        ("quantization", "mean_psnr", False),  # while layers are chosen
        ("compress", "find_bias_errors", False),
        ("compress", "save_weights", True),
    ],
)
def test_ctrl_c_is_heeded_without_a_fine_tuning_too(
    run, file, pictures, tmp_path, monkeypatch, short_timing, module, name, written
):
    module, calls = importlib.import_module(f"deconv_cli.compression.{module}"), []
    function = getattr(module, name)

    def interrupted(*arguments, **options):
        if not calls:
            signal.raise_signal(signal.SIGINT)
        calls.append(name)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)
    out = tmp_path / "out.safetensors"
    ran = run("compress", file, pictures, "--quantize", "int8", "--max-loss", 50, "--levels", 15, "--out", out)
    assert ran.code == 130, ran.stderr
    assert len(calls) == 1
    assert out.exists() == (out.with_suffix("") / "report.json").exists() == written
    assert ("no weights were written" in ran.stderr) == (not written)
    assert "what was trained" not in ran.stderr


def test_a_report_at_levels_that_no_paper_has(run, weights, pictures, tmp_path, short_timing):
    """The weights know none of those reported, and at level 0 doing nothing scores an infinite PSNR."""
    source, out = tmp_path / "weak.safetensors", tmp_path / "out.safetensors"
    save_weights(source, dataclasses.replace(weights, description=dataclasses.replace(
        weights.description, level_range=(0.0, 10.0))))  # fmt: skip
    options = ("--quantize", "int8", "--max-loss", 50, "--levels", 0, "--out", out)
    ran = run("compress", source, pictures, *options, "--json")
    assert ran.code == 0, ran.stderr
    assert {row["input_psnr"] for row in ran.json["scores"]["rows"]} == {None}
    report = (out.with_suffix("") / "report.json").read_text()
    assert "Infinity" not in report
    assert json.loads(report)["scores"] == ran.json["scores"]


@pytest.fixture
def instant(weights, monkeypatch, short_timing):
    """A compression that only copies the weights: what comes before and after it is tested."""

    def copy(source, folders, out, *_, **__):
        shutil.copy(source, out)
        return Compressed(weights, None)

    monkeypatch.setattr("deconv_cli.compression.compress.compress", copy)


def test_pictures_that_cannot_be_measured_are_named(run, file, pictures, tmp_path, instant):
    test = shutil.copytree(pictures, tmp_path / "test")
    Image.new("L", (8, 8)).save(test / "z-tiny.png")
    (test / "z-cut.png").write_bytes((test / "coffee.png").read_bytes()[:4000])
    out = tmp_path / "out.safetensors"
    ran = run("compress", file, pictures, "--quantize", "int8", "--levels", 15, "--test", test, "--out", out)
    assert ran.code == 1
    assert [line.split(":")[1].strip() for line in ran.stderr.splitlines() if line.startswith("error")] == [
        str(test / "z-cut.png"),
        str(test / "z-tiny.png"),
    ]
    assert "3 pictures" in ran.text
    assert out.exists()
    assert f"{out}: the compressed weights" in ran.stderr


def test_pictures_of_which_none_can_be_measured_are_refused_first(run, file, pictures, tmp_path, instant):
    test, out = tmp_path / "test", tmp_path / "out.safetensors"
    test.mkdir()
    Image.new("L", (8, 8)).save(test / "tiny.png")
    (test / "no.png").write_bytes(b"no picture")
    ran = run("compress", file, pictures, "--quantize", "int8", "--levels", 15, "--test", test, "--out", out)
    assert ran.code == 1
    assert "no picture to report on can be measured; the first: " in ran.stderr
    assert not out.exists()


def test_a_report_that_fails_says_where_the_weights_are(run, file, pictures, tmp_path, instant, monkeypatch):
    def fail(*_, **__):
        raise DeconvError("memory does not suffice")

    monkeypatch.setattr("deconv_cli.compression.report.measure", fail)
    out = tmp_path / "out.safetensors"
    ran = run("compress", file, pictures, "--quantize", "int8", "--levels", 15, "--out", out)
    assert ran.code == 1
    assert f"memory does not suffice; {out}: the compressed weights were written" in ran.stderr


def test_weights_trained_on_pairs_are_warned_of(run, weights, pictures, tmp_path):
    source = tmp_path / "paired.safetensors"
    save_weights(source, dataclasses.replace(weights, recipe={**RECIPE, "paired": "scans"}))
    # A patch that no picture has room for ends it early.
    ran = run("compress", source, pictures, "--quantize", "int8", "--patch", 256, "--out", tmp_path / "o.safetensors")
    assert ran.code == 1
    assert f"warning: {source}: trained on the pairs of scans, but compressed" in ran.stderr


def test_what_is_left_out_or_shared_is_warned_of_once(run, file, pictures, tmp_path, short_timing):
    """Pictures are looked at before the compression, in it, and by every fine-tuning."""
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    Image.new("RGB", (16, 16)).save(folder / "tiny.png")
    options = ("--quantize", "int8", "--max-loss", 50, "--levels", 15, "--finetune", 1)
    ran = run("compress", file, folder, "--val", folder, *options, "--out", tmp_path / "o.safetensors")
    assert ran.stderr.count("are trained on, too") == 1, ran.stderr
    assert ran.stderr.count("tiny.png: 16 x 16 is smaller than 32 x 32 pixels; left out\n") == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs one of NVIDIA's GPUs")
def test_a_gpu_fine_tunes(file, pictures, tmp_path):
    out, wanted = tmp_path / "out.safetensors", Compression(prune=0.2, quantize="int8", finetune=8)
    assert compress(file, [pictures], out, wanted, device=torch.device("cuda"))
    assert load_weights(out).quantization


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--prune FRACTION, --quantize int8"),
        (("--prune", 1.5), "from 0 to 1"),
        (("--prune", 0.97), "at most"),
        (("--quantize", "int4"), "int8"),
        (("--quantize", "int8", "--levels", "90"), "range 0 to 75"),
        (("--quantize", "int8", "--precision", "bf16"), "fp16 or fp32"),
        (("--quantize", "int8", "--out", "w.pt"), ".safetensors"),
        (("--quantize", "int8", "--val", "nowhere"), "no such folder"),
        (("--quantize", "int8", "--device", "tpu"), "device"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    run, file, pictures, tmp_path, monkeypatch, arguments, message
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ran = run("compress", file, pictures, *arguments)
    assert ran.code == 2
    assert message in ran.stderr
    assert not list(folder.iterdir())


def test_other_weights_and_existing_outputs_are_refused(run, file, pictures, tmp_path):
    assert run("compress", file, "--quantize", "int8").code == 2  # no folder
    classifier = Weights(Description("c", "classify", Architecture((4,), (1,)), (0, 0), classes=("a", "b")), {})
    with pytest.raises(UsageError, match="classes"):
        refuse(classifier, file, Compression(quantize="int8"))
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"precious")
    ran = run("compress", file, pictures, "--quantize", "int8", "--out", taken)
    assert ran.code == 2
    assert taken.read_bytes() == b"precious"
    precious = file.read_bytes()
    # Itself, and what keeps the files of a fine-tuning in the folder that it lies in.
    for out in (file, file.parent.with_suffix(".safetensors")):
        ran = run("compress", file, pictures, "--quantize", "int8", "--out", out, "--overwrite")
        assert ran.code == 2
        assert "another --out" in ran.stderr
    assert file.read_bytes() == precious


def test_a_foreign_quantization_is_refused(rounded, tmp_path):
    path = tmp_path / "int8.safetensors"
    save_weights(path, rounded)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    name = next(iter(rounded.quantization))
    for part, value in {
        "scales": np.zeros_like(rounded.quantization[name].scales),
        "input": np.array([np.nan, 3], np.float32),
        "weight": np.zeros((2, 2, 3, 3), np.int8),
    }.items():
        save_file(load_file(path) | {f"{name}.{part}": value}, tmp_path / "strange.safetensors", metadata)
        with pytest.raises(DeconvError, match=r"strange\.safetensors"):
            load_weights(tmp_path / "strange.safetensors")


def test_zero_is_exact_and_ranges_hold_what_they_should():
    how = Quantization.of(np.ones((2, 1, 3, 3), np.float32), 0.5, 3.0, transposed=False)
    assert how.zero_point == 0
    low, high = how.input_range
    assert (low, high) == pytest.approx((0, 3))
    assert how.scales.shape == (2, 1, 1, 1)


@pytest.fixture
def bundled(weights, rounded, tmp_path, monkeypatch):
    """A folder of bundled weights in which the denoiser is there in int8 as well."""
    folder = tmp_path / "weights"
    folder.mkdir()
    registry = {}
    networks = {"denoise": weights, "denoise-int8": rounded, "decompress": weights, "photo": weights}
    for name, each in networks.items():
        task = find_task(name.removesuffix("-int8"))
        described, parameters = dataclasses.replace(each.description, name=name, task=task.name), dict(each.parameters)
        if not task.condition_planes:
            architecture = dataclasses.replace(described.architecture, condition_planes=0)
            described = dataclasses.replace(described, architecture=architecture, level_range=task.train_range)
            parameters["head.weight"] = parameters["head.weight"][:, :3]
        made = dataclasses.replace(each, description=described, parameters=parameters)
        save_weights(folder / f"{name}.safetensors", made)
        sha256 = load_weights(folder / f"{name}.safetensors").sha256
        registry[name] = {"sha256": sha256, "summary": name}
    (folder / "registry.json").write_text(json.dumps(registry))
    monkeypatch.setattr("deconv_cli.network.bundled.weights_folder", lambda: folder)
    cached_restorer.cache_clear()
    yield folder
    cached_restorer.cache_clear()


def test_fast_takes_the_bundled_int8_weights_and_says_so(run, bundled, tmp_path):
    source = tmp_path / "in.png"
    Image.fromarray(data.chelsea()[:40, :56]).save(source)
    task = ("--task", "denoise", "--json")
    fast = run("restore", "--fast", *task, source, tmp_path / "fast.png").json_lines[0]
    assert fast["weights"] == "denoise-int8"
    assert "int8" in fast["decision"]
    full = run("restore", *task, source, tmp_path / "full.png").json_lines[0]
    assert full["weights"] == "denoise"
    assert "int8" not in full["decision"]
    images = [np.asarray(Image.open(tmp_path / name), float) for name in ("fast.png", "full.png")]
    assert 0 < np.abs(images[0] - images[1]).mean() < 3

    # No weights in int8 for this task: the full ones, and a word about it.
    other = run("restore", "--fast", "--task", "decompress", "--json", source, tmp_path / "other.png")
    assert other.json_lines[0]["weights"] == "decompress"
    assert "no weights in int8 are bundled for decompress" in other.stderr
    with pytest.raises(UsageError, match="decompress-int8"):
        restore(data.chelsea()[:40, :56], task="decompress", fast=True)
    both = run("restore", "--fast", "--weights", "denoise", source, tmp_path / "both.png")
    assert both.code == 2
    assert "--fast" in both.stderr


def test_fast_says_nothing_of_weights_that_only_measure(run, bundled, tmp_path, monkeypatch):
    """A trial looks for hidden noise by weights that are not there in int8, and something else restores, or nothing."""

    def nothing_hidden(pixels, trial):
        assert trial(pixels).shape == pixels.shape
        return Removed(0, 0)

    monkeypatch.setattr("deconv_cli.restoration.decision.removed_noise", nothing_hidden)
    Image.fromarray(data.chelsea()[100:196, 100:228]).save(tmp_path / "worn.jpg", quality=15)
    ran = run("restore", "--fast", "--json", tmp_path / "worn.jpg", tmp_path / "out.png")
    assert ran.json_lines[0]["weights"] == "decompress"
    assert "no weights in int8 are bundled for decompress" in ran.stderr
    assert "photo" not in ran.stderr


@pytest.mark.parametrize("task", ["denoise", "decompress", "photo"])
def test_fast_has_weights_for_every_task_that_keeps_the_size(run, tmp_path, task):
    Image.fromarray(data.chelsea()[100:140, 100:156]).save(tmp_path / "in.png")
    ran = run("restore", "--fast", "--task", task, "--json", tmp_path / "in.png", tmp_path / "out.png")
    assert ran.json_lines[0]["weights"] == f"{task}-int8"
    assert ran.stderr == ""


def test_a_processor_without_int8_computes_the_same_in_float(rounded, monkeypatch):
    def in_int8(engine):
        nodes = engine._request.get_compiled_model().get_runtime_model().get_ordered_ops()
        return sum(str(node.get_rt_info()["primitiveType"].value).endswith("I8") for node in nodes)

    x = stacked()
    engine = ENGINES["openvino"].load(rounded, "cpu", "fp32")
    expected = engine.run(x)
    assert (in_int8(engine) > 0) == has_native_int8()
    monkeypatch.setattr("deconv_cli.network.engines.openvino.has_native_int8", lambda: False)
    engine = ENGINES["openvino"].load(rounded, "cpu", "fp32")
    assert in_int8(engine) == 0
    assert np.abs(engine.run(x) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.skipif(not has_native_int8(), reason="the processor has no int8")
def test_rounding_is_part_of_other_layers():
    """By itself it would be done in float32 and another layout, which takes half as long as the convolutions."""
    weights = load_weights(find_weights("denoise-int8"))
    model = ENGINES["openvino"].load(weights, "cpu", "fp32")._request.get_compiled_model().get_runtime_model()
    kinds = [node.get_rt_info()["layerType"].value for node in model.get_ordered_ops()]
    assert "Convolution" in kinds
    assert "FakeQuantize" not in kinds
