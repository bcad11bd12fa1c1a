"""Super-resolution: the resampling it rests on, the network's shape, exact tiles, transparency, and the commands."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

import deconv_cli as deconv
from deconv_cli.errors import UsageError
from deconv_cli.images import downscale, from_float, to_float, upscale
from deconv_cli.network.description import Architecture, Description
from deconv_cli.network.encoder_decoder import build_network, enlarge
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.restoration.restorer import Restorer, Restorers
from deconv_cli.tasks import find_task

SCALES = (2, 3, 4)
TINY = ("--widths", "8,12", "--blocks", "1,1", "--patch", 48, "--batch", 8)


def make_weights(path, scale, widths=(4, 6, 8), blocks=(1, 1, 1)):
    torch.manual_seed(scale)
    architecture = Architecture(widths, blocks, condition_planes=0, scale=scale)
    description = Description(f"tiny-x{scale}", "sr", architecture, (scale, scale))
    network = build_network(architecture)
    torch.nn.init.normal_(network.tail.weight, std=0.05)
    save_weights(path, Weights(description, to_parameters(network.state_dict())), dtype=np.float32)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sr")
    return {scale: make_weights(folder / f"x{scale}.safetensors", scale) for scale in SCALES}


@pytest.fixture(scope="module")
def restorers(files):
    return {scale: Restorer(path, precision="fp32") for scale, path in files.items()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in {
        "astronaut": data.astronaut()[:144, 150:300],
        "chelsea": data.chelsea()[80:224, 100:260],
        "camera": data.camera()[150:300, 150:300],
    }.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def picture(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("scale", SCALES)
def test_resampling_is_bicubic_with_mirrored_borders(scale):
    """Pillow's bicubic has the same kernel, but another border: give it the mirrored one."""
    image, margin = picture(12 * scale, 15 * scale), 6 * scale
    padded = Image.fromarray(np.pad(image, margin, mode="symmetric"))
    width, height = padded.size

    def by_pillow(factor):
        resized = np.asarray(padded.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC))
        border = round(margin * factor)
        return resized[border:-border, border:-border]

    assert np.abs(downscale(image, scale) - by_pillow(1 / scale)).max() < 1e-6
    assert np.abs(upscale(image, scale) - by_pillow(scale)).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(SCALES), st.floats(0, 1, width=32))
def test_flat_pictures_of_any_size_stay_flat(height, width, scale, value):
    flat = np.full((height * scale, width * scale, 3), value, np.float32)
    small = downscale(flat, scale)
    assert small.shape == (height, width, 3)
    assert np.allclose(small, value, atol=1e-6)
    assert np.allclose(upscale(small, scale), flat, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_multiply_adds_are_within_the_budget_and_those_of_the_layers(scale):
    """Counted by the layers' own shapes, per pixel of the large picture."""
    task = find_task("sr")
    architecture = Architecture(task.widths, task.blocks, condition_planes=0, scale=scale)
    network = build_network(architecture)
    counted = 0

    def count(layer, inputs, output):
        nonlocal counted
        deconv = isinstance(layer, torch.nn.ConvTranspose2d)
        counted += layer.weight.numel() * (inputs[0] if deconv else output)[0, 0].numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    out = network(torch.rand(1, 3, 32, 32))
    assert out.shape == (1, 3, 32 * scale, 32 * scale)
    assert counted / (32 * scale) ** 2 == pytest.approx(architecture.multiply_adds)
    assert sum(parameter.numel() for parameter in network.parameters()) == architecture.parameters
    assert architecture.multiply_adds < {2: 200e3, 3: 120e3, 4: 80e3}[scale]


@pytest.mark.parametrize("scale", SCALES)
def test_a_new_network_is_nearly_bicubic_and_does_not_ripple(scale):
    torch.manual_seed(0)
    network = build_network(Architecture((8, 12), (1, 1), condition_planes=0, scale=scale))
    image = picture(16, 24, 3)
    out = network(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).detach().numpy()
    assert np.abs(out - upscale(image, scale)).mean() < 0.1
    flat = network.tail(torch.randn(1, 8, 1, 1).expand(-1, -1, 5, 5))
    assert (flat - flat[:, :, :1, :1]).abs().max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(
    scale=st.sampled_from(SCALES),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(1, 40),
    gray=st.booleans(),
    tta=st.booleans(),
)
def test_tiled_equals_untiled(restorers, scale, height, width, tile, gray, tta):
    image = picture(height, width) if gray else picture(height, width, 3)
    whole, tiled = (restorers[scale].restore(image, tile=how, tta=tta).pixels for how in ("off", tile))
    assert whole.shape == (height * scale, width * scale, *image.shape[2:])
    assert np.abs(tiled - whole).max() <= 1e-4 / 255


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9, 3), (13, 18, 3)])
def test_strength_zero_is_bicubic(restorers, scale, shape):
    eight = from_float(picture(*shape), np.uint8)
    none, full = (restorers[scale].restore(eight, strength=strength).pixels for strength in (0, 1))
    assert np.array_equal(none, from_float(upscale(to_float(eight), scale), np.uint8))
    assert not np.array_equal(none, full)


def test_transparency_is_enlarged_with_the_picture(restorers):
    image = from_float(picture(20, 24, 4), np.uint8)
    image[..., 3] = 255
    image[:10, :, 3] = 0
    other = image.copy()
    other[:10, :, :3] = 255 - other[:10, :, :3]
    first, second = (restorers[2].restore(given).pixels for given in (image, other))
    assert first.shape == (40, 48, 4)
    assert np.array_equal(first[..., 3], from_float(upscale(to_float(image[..., 3]), 2), np.uint8))
    assert first[30:, :, 3].min() == 255
    visible = first[..., 3] > 0
    assert np.array_equal(first[visible], second[visible])


def test_it_learns_to_enlarge_and_hands_its_body_on(run, pictures, tmp_path):
    out, larger = tmp_path / "x2.safetensors", tmp_path / "x3.safetensors"
    ran = run("train", pictures, "--scale", 2, *TINY, "--steps", 250, "--val", pictures, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["psnr"] > score["input_psnr"] + 0.3
    weights = load_weights(out)
    assert (weights.description.task, weights.description.scale) == ("sr", 2)
    assert "channel y, crop 2" in weights.scores["protocol"]

    deeper = ("--scale", 3, *TINY, "--blocks", "2,1", "--steps", 1, "--lr", 1e-9)
    assert run("train", pictures, *deeper, "--init", out, "--out", larger).code == 0
    taken, new = weights.parameters, load_weights(larger).parameters
    assert np.allclose(new["encoder.0.0.conv1.weight"], taken["encoder.0.0.conv1.weight"], atol=1e-3)
    assert new["tail.weight"].shape[-1] == 3
    assert "encoder.0.1.conv1.weight" in new
    ran = run("train", pictures, "--scale", 2, *TINY, "--init", larger, "--out", tmp_path / "back.safetensors")
    assert ran.code == 2
    assert "cannot start" in ran.stderr


def test_the_command_enlarges(run, files, tmp_path):
    small = data.chelsea()[60:100, 100:150]
    Image.fromarray(small).save(tmp_path / "small.png")
    Image.fromarray(small[..., 0]).save(tmp_path / "gray.png")
    out = tmp_path / "out"
    sheet = tmp_path / "sheet.png"
    ran = run(
        "restore", tmp_path, out, "--scale", 3, "--weights", files[3], "--strength", 0, "--compare", sheet, "--json"
    )
    assert ran.code == 0, ran.stderr
    assert {line.get("scale") for line in ran.json_lines[:-1]} == {3}
    assert sheet.exists()
    with Image.open(out / "small.png") as image:
        expected = from_float(upscale(to_float(small), 3), np.uint8)
        assert np.array_equal(np.asarray(image), expected)
    with Image.open(out / "gray.png") as image:
        assert (image.mode, image.size) == ("L", (150, 120))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", 5), "valid: 2, 3, 4"),
        (("--scale", 3, "--task", "denoise"), "are for sr, not for denoise"),
        (("--scale", 3, "--noise-level", 10), "are for sr, not for denoise"),
        (("--scale", 2), "are for scale 3, not for 2"),
        (("--task", "denoise"), "are for sr, not for denoise"),
        (("--noise-level", 10), "blind"),
    ],
)
def test_contradictions_are_refused(run, files, tmp_path, options, message):
    Image.new("RGB", (20, 20)).save(tmp_path / "in.png")
    ran = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--weights", files[3], *options)
    assert ran.code == 2
    assert message in ran.stderr
    assert not (tmp_path / "out.png").exists()


def test_what_had_better_be_restored_before_it_is_enlarged_is_warned_of(run, files, tmp_path):
    clean = downscale(to_float(data.astronaut()), 2).clip(0, 1)
    noisy = clean + np.random.default_rng(0).normal(0, 8 / 255, clean.shape)
    for name, picture, options in (
        ("clean.png", clean, {}),
        ("noisy.png", noisy.clip(0, 1), {}),
        ("worn.jpg", clean, {"quality": 60}),
        ("fine.jpg", clean, {"quality": 95}),
    ):
        Image.fromarray(from_float(picture.astype(np.float32), np.uint8)).save(tmp_path / name, **options)
    lines = run("restore", tmp_path, tmp_path / "out", "--weights", files[2], "--json").json_lines
    warned = {line["input"].rpartition("/")[2]: " ".join(line["warnings"]) for line in lines if "input" in line}
    assert warned.keys() == {"clean.png", "noisy.png", "worn.jpg", "fine.jpg"}
    assert not warned["clean.png"]
    assert not warned["fine.jpg"]
    assert "noise level 8" in warned["noisy.png"]
    assert "JPEG quality 60" in warned["worn.jpg"]
    assert "--task decompress beside --scale undoes it" in warned["worn.jpg"]
    assert "--task denoise beside --scale undoes it" in warned["noisy.png"]


@pytest.fixture
def worn(tmp_path):
    """Return a small picture, noisy and with a resolution."""
    clean = data.astronaut()[40:130, 170:270]
    noisy = (clean + np.random.default_rng(0).normal(0, 12, clean.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "worn.png", dpi=(150, 150))
    return tmp_path / "worn.png"


@pytest.mark.parametrize("options", [("--task", "denoise", "--noise-level", 11), ("--task", "decompress"), ("--tta",)])
def test_what_is_restored_and_enlarged_at_once_is_as_by_two_runs(run, worn, tmp_path, options):
    """With a resolution that grows once, and one line that tells both."""
    options = options if "--task" in options else ("--task", "photo", *options)
    once, first, second = (tmp_path / f"{name}.png" for name in ("once", "first", "second"))
    ran = run("restore", worn, once, *options, "--scale", 2, "--json")
    assert ran.code == 0, ran.stderr
    before = run("restore", worn, first, *options, "--json").json_lines[0]
    after = run("restore", first, second, "--scale", 2, "--json", *options[2:] * (options[-1] == "--tta")).json_lines[0]
    with Image.open(once) as result, Image.open(second) as expected:
        assert np.array_equal(np.asarray(result), np.asarray(expected))
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    line = ran.json_lines[0]
    assert not line["warnings"]
    assert (line["task"], line["scale"]) == (f"{options[1]}+sr", 2)
    assert line["weights"] == f"{options[1]}+sr-x2"
    assert line["noise_level"] == before["noise_level"]
    assert line["decision"] == f"{before['decision']}; {after['decision']}"


def test_a_noise_level_beside_a_scale_is_that_of_noise_to_take_off_before(run, worn, tmp_path):
    line = run("restore", worn, tmp_path / "out.png", "--noise-level", 12, "--scale", 2, "--json").json_lines[0]
    assert (line["task"], line["noise_level"], line["warnings"]) == ("denoise+sr", 12, [])
    ran = run("restore", worn, tmp_path / "no.png", "--noise-level", 99, "--scale", 2)
    assert ran.code == 2
    assert "75" in ran.stderr


def test_a_scale_of_one_enlarges_nothing(run, worn, tmp_path):
    line = run("restore", worn, tmp_path / "out.png", "--task", "photo", "--scale", 1, "--json").json_lines[0]
    assert (line["task"], line["scale"], line["warnings"]) == ("photo", 1, [])
    assert run("restore", worn, tmp_path / "no.png", "--scale", 1).code == 2


def test_a_part_is_restored_and_enlarged_as_in_the_whole(run, worn, tmp_path):
    whole, part, sheet = (tmp_path / f"{name}.png" for name in ("whole", "part", "sheet"))
    options = ("--task", "denoise", "--scale", 3, "--stamp", "--overwrite")
    assert run("restore", worn, whole, *options).code == 0
    assert run("restore", worn, part, *options, "--crop", "50,30,40,25", "--compare", sheet).code == 0
    with Image.open(whole) as image, Image.open(part) as cropped:
        assert np.array_equal(np.asarray(cropped), np.asarray(image)[90:165, 150:270])
        facts = dict(line.split(": ") for line in cropped.info["deconv"].splitlines())
    assert (facts["Task"], facts["Weights"], facts["Scale"]) == ("denoise+sr", "denoise+sr-x3", "3")
    assert len(facts["WeightsSha256"].split("+")) == 2


def test_what_restoring_and_enlarging_takes_is_estimated_of_both(run, worn, tmp_path, monkeypatch):
    asked = []
    of = Restorers.of
    monkeypatch.setattr(Restorers, "of", lambda self, *task, **how: asked.append(task) or of(self, *task, **how))
    ran = run("restore", worn, tmp_path / "out.png", "--task", "photo", "--scale", 2, "--dry-run", "--json")
    assert ran.code == 0, ran.stderr
    assert [task[0] for task in asked] == ["photo", "sr"]
    alone = run("restore", worn, tmp_path / "out.png", "--task", "photo", "--dry-run", "--json")
    assert ran.json_lines[-1]["memory_bytes"] > alone.json_lines[-1]["memory_bytes"]


def test_pages_that_had_better_be_restored_first_are_warned_of_once_a_file(run, files, tmp_path):
    rng, clean = np.random.default_rng(0), data.camera()[:128, :128] / 255
    pages = [
        Image.fromarray(from_float(clean + rng.normal(0, sigma / 255, clean.shape), np.uint8)) for sigma in (0, 9, 15)
    ]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    line = run("restore", tmp_path / "scan.tif", tmp_path / "out.tif", "--weights", files[2], "--json").json_lines[0]
    assert len(line["warnings"]) == 1
    assert "noise level" in line["warnings"][0]


def test_the_public_function_enlarges(files):
    image = picture(9, 12, 3)
    assert deconv.restore(image, weights=files[2]).shape == (18, 24, 3)
    assert deconv.restore(image, scale=2, weights=files[2]).shape == (18, 24, 3)
    with pytest.raises(UsageError, match="scale 2, not for 4"):
        deconv.restore(image, scale=4, weights=files[2])


def test_the_public_function_restores_and_enlarges():
    image = picture(12, 16, 3)
    for options in ({"task": "photo"}, {"noise_level": 9.0}):
        expected = deconv.restore(deconv.restore(image, **options), scale=3)
        np.testing.assert_array_equal(deconv.restore(image, scale=3, **options), expected)
    assert deconv.restore(image, task="photo", scale=1).shape == image.shape
    with pytest.raises(UsageError, match="scale 5"):
        deconv.restore(image, task="photo", scale=5)


def test_bench_follows_the_protocol(run, files, pictures, tmp_path):
    """The baseline is bicubic interpolation, scored on the luma without the border."""
    result = run("bench", pictures, "--weights", files[3], "--json").json
    (row,) = result["rows"]
    assert (row["level"], result["protocol"]["channel"], result["protocol"]["crop"]) == (3, "y", 3)
    expected = []
    for path in sorted(pictures.iterdir()):
        clean = np.asarray(Image.open(path))
        clean = clean[: clean.shape[0] // 3 * 3, : clean.shape[1] // 3 * 3]
        small = to_float(from_float(downscale(to_float(clean), 3), np.uint8))
        expected.append(deconv.psnr(clean, from_float(upscale(small, 3), np.uint8), channel="y", crop=3))
    assert row["input_psnr"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_level_range_that_is_not_the_scale_is_refused():
    from deconv_cli.training.config import TrainConfig

    config = TrainConfig(task="sr", scale=3)
    assert config.level_range == (3, 3)
    assert config.multiple == 6
    with pytest.raises(UsageError, match="multiple of 6"):
        dataclasses.replace(config, patch=64)
    with pytest.raises(UsageError, match="is its scale"):
        dataclasses.replace(config, level_range=(2.0, 3.0))


@pytest.mark.parametrize("command", ["restore", "bench"])
def test_a_task_without_weights_says_how_to_get_some(run, tmp_path, monkeypatch, command):
    monkeypatch.setattr("deconv_cli.restoration.restorer.bundled_weights", dict)
    Image.fromarray(data.chelsea()[:24, :24]).save(tmp_path / "in.png")
    options = {"restore": (tmp_path / "in.png", tmp_path / "out.png"), "bench": (tmp_path,)}
    ran = run(command, *options[command], "--scale", 3)
    assert ran.code == 2
    assert "deconv train FOLDER --scale 3" in ran.stderr


def test_enlarging_in_inference_leaves_training_its_gradient():
    """The matrices are kept, whoever asked for them first."""
    with torch.inference_mode():
        enlarge(torch.rand(1, 3, 23, 29), 2)
    image = torch.rand(1, 3, 23, 29, requires_grad=True)
    enlarge(image, 2).sum().backward()
    assert image.grad is not None
    assert image.grad.sum().item() == pytest.approx(image.numel() * 4, rel=1e-4)


@pytest.mark.parametrize(("name", "beyond"), [("sr-x4", 16), ("denoise", 32)])
def test_a_picture_goes_on_beyond_its_border_for_as_far_as_that_counts(monkeypatch, name, beyond):
    restorer, sizes = Restorer(name, precision="fp32"), []
    monkeypatch.setattr(restorer.runner, "ran", ("none", "fp32"))

    def run(x, precision):
        sizes.append(x.shape[2:])
        scale = restorer.description.scale
        return np.zeros((1, 3, x.shape[2] * scale, x.shape[3] * scale), np.float32)

    monkeypatch.setattr(restorer.runner, "run", run)
    restorer.restore(np.zeros((40, 48, 3), np.uint8))
    assert sizes == [(40 + 2 * beyond, 48 + 2 * beyond)]
