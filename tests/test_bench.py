"""``deconv bench``: the protocols, several methods side by side, and the tables."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data, restoration

import deconv_cli as deconv
from deconv_cli.degradation.jpeg import compress_jpeg
from deconv_cli.evaluation import speed as speed_module
from deconv_cli.evaluation.classical import find_classical, lanczos
from deconv_cli.images import from_float, to_float
from deconv_cli.metrics import to_luma

CROPS = {"astronaut": (0, 256), "chelsea": (20, 150)}


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colour")
    for name, (top, left) in CROPS.items():
        Image.fromarray(getattr(data, name)()[top : top + 96, left : left + 96]).save(folder / f"{name}.png")
    return folder


def read(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def jpeg(clean, quality, subsampling="4:2:0"):
    return from_float(compress_jpeg(to_float(clean), quality, subsampling), np.uint8)


def test_colour_jpeg_in_rgb_and_luma(run, colour, tiny_blind_weights):
    weights = ("--weights", tiny_blind_weights, "--levels", 20)
    for options, subsampling, channel in (
        ((), "4:2:0", "rgb"),
        (("--channel", "y"), "4:2:0", "y"),
        (("--subsampling", "4:4:4"), "4:4:4", "rgb"),
    ):
        result = run("bench", colour, *weights, *options, "--json").json
        expected = [deconv.psnr(clean, jpeg(clean, 20, subsampling), channel=channel) for clean in read(colour)]
        assert result["rows"][0]["input_psnr"] == pytest.approx(np.mean(expected), abs=1e-9)
        assert subsampling in result["conditions"]
        assert result["protocol"]["channel"] == channel


def test_gray_jpeg_of_colour_originals_takes_their_rounded_luma_first(run, colour, tiny_blind_weights):
    result = run("bench", colour, "--weights", tiny_blind_weights, "--gray", "--levels", 20, "--json").json
    lumas = [np.rint(to_luma(clean)).astype(np.uint8) for clean in read(colour)]
    expected = [deconv.psnr(luma, jpeg(luma, 20)) for luma in lumas]
    assert result["rows"][0]["input_psnr"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_the_luma_of_float_originals_is_not_rounded(run, tmp_path, tiny_blind_weights):
    clean = to_float(data.chelsea()[100:196, 100:196])
    tifffile.imwrite(tmp_path / "float.tif", clean, photometric="rgb")
    result = run("bench", tmp_path, "--weights", tiny_blind_weights, "--gray", "--levels", 20, "--json").json
    luma = to_luma(clean).astype(np.float32)
    assert result["rows"][0]["input_psnr"] == pytest.approx(deconv.psnr(luma, compress_jpeg(luma, 20)), abs=1e-9)


def test_methods_side_by_side_see_the_same_pictures(run, colour, tiny_weights, tmp_path):
    table = tmp_path / "table.csv"
    options = ("--weights", tiny_weights, "--weights", "denoise", "--against", "nlm,tv,wavelet", "--levels", "25,50")
    result = run("bench", colour, *options, "--csv", table, "--json").json
    methods = ["tiny", "denoise", "nlm", "tv", "wavelet"]
    assert [(row["level"], row["method"]) for row in result["rows"]] == [(at, m) for at in (25, 50) for m in methods]
    for level in (25, 50):
        scores = {row["method"]: row["psnr"] for row in result["rows"] if row["level"] == level}
        inputs = {row["input_psnr"] for row in result["rows"] if row["level"] == level}
        assert len(inputs) == 1
        assert min(scores[name] for name in ("nlm", "tv", "wavelet")) > inputs.pop() + 3
        assert scores["denoise"] == max(scores.values())
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [float(row["psnr"]) for row in rows] == pytest.approx([row["psnr"] for row in result["rows"]])
    assert {(row["channel"], row["crop"], row["conditions"]) for row in rows} == {("rgb", "0", result["conditions"])}


def test_weights_keep_a_row_of_their_own_whatever_their_file_is_called(run, colour, tiny_weights, tmp_path):
    here, there = tmp_path / "here" / "tv.safetensors", tmp_path / "there" / "tv.safetensors"
    for path in (here, there):
        path.parent.mkdir()
        shutil.copy(tiny_weights, path)
    for files in ((here,), (here, there)):
        weights = [word for file in files for word in ("--weights", file)]
        result = run("bench", colour, *weights, "--against", "tv,tv", "--levels", 25, "--json").json
        assert [row["method"] for row in result["rows"]] == [*map(str, files), "tv"]


def test_names_of_weights_are_shown_as_they_are(run, colour, tiny_weights, tmp_path):
    weights = shutil.copy(tiny_weights, tmp_path / "mine[best].safetensors")
    rows = run("bench", colour, "--weights", weights, "--levels", 20).text.splitlines()
    assert any(row.split()[:2] == ["20", "mine[best]"] for row in rows)


def test_markdown(run, colour, tiny_weights):
    lines = run("bench", colour, "--weights", tiny_weights, "--levels", 25, "--markdown").text.splitlines()
    assert lines[0].startswith("| noise level (sigma on 0..255) | method | input PSNR (dB) |")
    assert lines[2].startswith("| 25 | tiny | 20.")
    assert len({line.count("|") for line in lines}) == 1


def test_weights_of_another_task_are_told_how_strong_the_error_is(run, colour, tiny_weights):
    """The Gaussian model on camera noise; the level of that task is none of its own."""
    options = ("--task", "photo", "--weights", "denoise", "--against", "nlm", "--levels", 10)
    result = run("bench", colour, *options, "--json").json
    assert result["task"] == "photo"
    for row in result["rows"]:
        assert row["psnr"] > row["input_psnr"] + 1


def test_enlarging_needs_no_weights_to_be_compared(run, colour):
    result = run("bench", colour, "--scale", 4, "--against", "bicubic,lanczos", "--json").json
    rows = {row["method"]: row for row in result["rows"]}
    assert rows["bicubic"]["psnr"] == rows["bicubic"]["input_psnr"]
    assert rows["lanczos"]["psnr"] != rows["bicubic"]["psnr"]


def test_the_classical_methods_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    clean = to_float(data.chelsea()[50:114, 100:164])
    noisy = (clean + rng.normal(0, 0.1, clean.shape)).astype(np.float32)
    expected = restoration.denoise_wavelet(
        noisy.copy(), sigma=0.1, convert2ycbcr=True, rescale_sigma=True, channel_axis=2
    )
    assert np.allclose(find_classical("wavelet", 1)(noisy, 0.1), expected, atol=1e-6)
    for name in ("nlm", "tv", "wavelet"):
        for image in (noisy, noisy[..., 0]):
            out = find_classical(name, 1)(image, 0.1)
            assert (out.dtype, out.shape) == (np.float32, image.shape)
    gray = lanczos(clean[..., 0], 3)
    assert gray.shape == (192, 192)
    assert np.allclose(lanczos(clean, 3)[..., 0], gray)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "nlmm"), "did you mean 'nlm'"),
        (("--against", "bicubic"), "not for this task"),
        (("--scale", 2, "--against", "nlm"), "valid: bicubic, lanczos"),
        (("--scale", 2, "--levels", "2", "--against", "bicubic"), "is its scale"),
        (("--task", "denoise", "--weights", "sr-x2"), "'sr-x2' are for scale 2, not for denoise at scale 1"),
        (("--task", "sr", "--weights", "denoise"), "'denoise' are for scale 1, not for sr at scale 2"),
        (("--scale", 3, "--weights", "sr-x2"), "'sr-x2' are for scale 2, not for sr at scale 3"),
        (("--subsampling", "4:4:4"), "--task decompress"),
        (("--channel", "luma"), "valid: gray, rgb, y"),
        (("--csv", "nowhere/table.csv"), "folder that exists"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, colour, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    ran = run("bench", colour, *options)
    assert ran.code == 2
    assert message in ran.stderr


def test_the_page_of_tables_is_what_the_bundled_weights_scored(monkeypatch):
    """Made anew with ``python benchmarks/make_tables.py``."""
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import make_tables

    assert make_tables.OUT.read_text(encoding="utf-8") == make_tables.page()


def test_a_level_that_leaves_the_pictures_as_they_are(run, colour, tiny_weights):
    """Doing nothing then scores an infinite PSNR, which JSON has no word for."""
    ran = run("bench", colour, "--weights", tiny_weights, "--levels", 0, "--json")
    assert ran.code == 0, ran.stderr
    (row,) = ran.json["rows"]
    assert (row["input_psnr"], row["input_ssim"]) == (None, 1)
    assert row["psnr"] > 0


def test_a_picture_that_is_restored_exactly_does_not_hide_the_others(run, colour, tmp_path):
    """JPEG keeps a blank page as it is."""
    folder = shutil.copytree(colour, tmp_path / "colour")
    options = ("--task", "decompress", "--levels", 40, "--json")
    before = run("bench", folder, *options).json["rows"][0]
    Image.new("RGB", (64, 64), (128, 128, 128)).save(folder / "zz-blank.png")
    after = run("bench", folder, *options).json["rows"][0]
    assert after["input_psnr"] == pytest.approx(before["input_psnr"])
    assert after["input_ssim"] > before["input_ssim"]


def test_a_bad_picture_fails_alone(run, colour, tmp_path):
    folder = shutil.copytree(colour, tmp_path / "colour")
    before = run("bench", folder, "--against", "tv", "--levels", 25, "--weights", "denoise", "--json").json
    (folder / "z-broken.png").write_bytes(b"no picture")
    Image.new("L", (8, 8)).save(folder / "z-tiny.png")
    table = tmp_path / "table.csv"
    options = ("--against", "tv", "--levels", 25, "--weights", "denoise", "--json", "--csv", table)
    ran = run("bench", folder, *options)
    assert ran.code == 1
    assert [failure["name"] for failure in ran.json["failed"]] == ["z-broken.png", "z-tiny.png"]
    assert ran.stderr.count(f"error: {folder}") == 2
    assert ran.json["pictures"] == 2
    assert [row["psnr"] for row in ran.json["rows"]] == [row["psnr"] for row in before["rows"]]
    assert len(table.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--levels", "nan"), "from 0 to 255"),
        (("--levels=-5",), "from 0 to 255"),
        (("--task", "decompress", "--levels", "120"), "from 1 to 100"),
    ],
)
def test_levels_that_there_are_not_are_refused(run, colour, options, message):
    ran = run("bench", colour, *options)
    assert ran.code == 2
    assert message in ran.stderr


def test_the_engine_that_ran_is_named_and_why_others_did_not(run, colour, tiny_weights, monkeypatch):
    options = ("--weights", tiny_weights, "--levels", 25, "--json")
    both = run("bench", colour, *options, "--against", "tv", "--engine", "torch").json
    assert both["engines"] == {"tiny": {"engine": "torch", "fallback": None}}
    monkeypatch.setitem(sys.modules, "deconv_cli.network.engines.openvino", None)
    ran = run("bench", colour, *options).json["engines"]["tiny"]
    assert ran["engine"] in ("onnxruntime", "torch")
    assert ran["fallback"].startswith("openvino: the engine openvino cannot be imported")


@pytest.fixture
def short_timing(monkeypatch):
    monkeypatch.setattr(speed_module, "SIZE", (64, 96))
    monkeypatch.setattr(speed_module, "LARGE", (72, 96))
    monkeypatch.setattr(speed_module, "MEGAPIXELS", (0.01,))
    monkeypatch.setattr(speed_module, "_thread_counts", lambda: [1])
    monkeypatch.setattr(speed_module, "BATCH_SIDE", 32)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nowhere",), "FOLDER"),
        (("--engine", "nonsense"), "--engine"),
        (("--precision", "fp99"), "--precision"),
        (("--csv", "t.csv"), "--csv"),
        (("--levels", "x"), "--levels"),
        (("--gray",), "--gray"),
        (("--weights", "denoise", "--task", "sr"), "--task"),
    ],
)
def test_what_does_not_go_with_speed_is_refused(run, arguments, named):
    ran = run("bench", "--speed", *arguments)
    assert ran.code == 2
    assert f"{named} does not go with --speed" in ran.stderr


def test_rounds_are_for_speed(run, colour):
    ran = run("bench", colour, "--rounds", 1)
    assert ran.code == 2
    assert "--rounds is for --speed" in ran.stderr


@pytest.mark.parametrize(("says", "reason"), [("", "exit status -9"), ("Traceback\nno room\n", "no room")])
def test_a_timing_process_that_dies_is_told(run, tiny_weights, short_timing, monkeypatch, says, reason):
    dead = subprocess.CompletedProcess([], -9, "", says)
    monkeypatch.setattr(speed_module.subprocess, "run", lambda *_, **__: dead)
    ran = run("bench", "--speed", "--rounds", 1, "--weights", tiny_weights, "--device", "cpu")
    assert ran.code == 1
    assert ran.stderr == f"error: timing in a process of its own failed: {reason}\n"


def test_speed_compares_engines(run, tiny_weights, short_timing):
    both = ("--weights", tiny_weights, "--weights", "sr-x4")
    ran = run("bench", "--speed", "--rounds", 1, *both, "--device", "cpu", "--json")
    assert ran.code == 0, ran.stderr
    other = [row for row in ran.json["rows"] if row["weights"] == "sr-x4"]
    assert {row["ratio"] for row in other if row["engine"] == "torch"} == {1}, "another task, another reference"
    rows = {(row["engine"], row["precision"]): row for row in ran.json["rows"] if row not in other}
    assert {("openvino", "fp32"), ("torch", "fp32")} <= rows.keys()
    assert rows["torch", "fp32"]["ratio"] == 1
    row = rows["openvino", "fp32"]
    assert row["ratio"] == pytest.approx(row["megapixels_per_second"] / rows["torch", "fp32"]["megapixels_per_second"])
    assert all(0 < row["share"] < 10 for row in rows.values())
    assert 0 < ran.json["engine_share"] < 1
    (size,) = ran.json["sizes"]
    assert size["seconds"] > 0
    assert 50e6 < size["peak_bytes"] < 2e9
    assert list(ran.json["batches"]) == ["1", "2", "4"]
    assert run("bench").code == 2
