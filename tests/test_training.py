"""Training: it learns, it is exact, and it says what is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shlex
import shutil
import signal
import tomllib
import weakref
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from skimage import data

from deconv_cli.errors import DeconvError, DiskFullError, UsageError
from deconv_cli.network import container
from deconv_cli.network.weights import load_weights
from deconv_cli.restoration.restorer import Restorer
from deconv_cli.restoration.running import self_ensemble
from deconv_cli.tasks import find_task
from deconv_cli.training import data as data_module
from deconv_cli.training import divergence, loop, step
from deconv_cli.training import optimizer as optimizer_module
from deconv_cli.training import record as record_module
from deconv_cli.training.checkpoint import METADATA_KEY
from deconv_cli.training.config import LOSSES, TrainConfig, config_from_dict
from deconv_cli.training.data import (
    Batch,
    PictureSet,
    draw_batch,
    prefetch,
    read_held_out,
    read_rgb8,
    split_pictures,
)
from deconv_cli.training.optimizer import Muon, orthogonalise
from deconv_cli.training.run_files import RunFiles
from deconv_cli.training.teacher import Teacher
from deconv_cli.training.validation import Score, make_cases

TINY = ("--widths", "8,12", "--blocks", "1,1", "--patch", 32, "--batch", 8)
QUICK = ("--widths", "8,8", "--blocks", "1,1", "--patch", 16, "--batch", 2)
TINY_CONFIG = TrainConfig(widths=(4, 6), blocks=(1, 1), patch=16, batch=2, steps=12)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in {
        "astronaut": data.astronaut()[:128, 150:300],
        "chelsea": data.chelsea()[80:208, 100:260],
        "coffee": data.coffee()[100:228, 200:350],
        "camera": data.camera()[150:300, 150:300],
    }.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_decoded_pictures_are_kept_in_a_share_of_the_containers_memory(pictures, tmp_path, monkeypatch):
    """A quarter of what it has left is 130 kB here: enough for two of the pictures."""
    group, decoded = tmp_path / "box", []
    group.mkdir()
    for name, content in {"max": "1000000\n", "current": "480000\n", "stat": "inactive_file 0\n"}.items():
        (group / f"memory.{name}").write_text(content)
    (tmp_path / "membership").write_text("0::/box\n")
    monkeypatch.setattr(container, "CGROUPS", tmp_path)
    monkeypatch.setattr(container, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(data_module, "read_rgb8", lambda path: decoded.append(path.stem) or read_rgb8(path))
    found = PictureSet(sorted(pictures.iterdir()), 16)
    for index in (0, 1, 1, 0, 2, 0, 1):
        assert found[index].ndim == 3
    assert decoded == ["astronaut", "camera", "chelsea", "camera"]


def test_it_learns_to_denoise(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    ran = run("train", pictures, *TINY, "--lr", 0.02, "--steps", 250, "--noise-level", "25:25", "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["psnr"] > score["input_psnr"] + 4
    assert score["ssim"] > score["input_ssim"] + 0.1

    weights = load_weights(out)
    assert weights.description.level_range == (25, 25)
    assert weights.recipe["widths"] == [8, 12]
    assert weights.scores["validation"][0]["psnr"] == pytest.approx(score["psnr"], abs=1)
    folder = out.with_suffix("")
    assert tomllib.loads((folder / "config.toml").read_text())["steps"] == 250
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    with Image.open(folder / "curve.png") as curve:
        assert curve.width > 500


def test_the_same_seed_learns_the_same_and_another_does_not(pictures, tmp_path):
    def weights(name, seed):
        out = tmp_path / f"{name}.safetensors"
        loop.train([pictures], out, dataclasses.replace(TINY_CONFIG, seed=seed))
        return load_file(out)

    first, second, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_disk_that_fills_up_ends_a_training_with_a_word(tmp_path, pictures, monkeypatch):
    def fill_up(path, _):
        path.symlink_to("/dev/full")

    monkeypatch.setattr(record_module, "write_atomically", fill_up)
    with pytest.raises(DiskFullError, match=r"log\.jsonl: cannot be written"):
        loop.train([pictures], tmp_path / "w.safetensors", TINY_CONFIG)


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_resumed_training_equals_an_uninterrupted_one(pictures, tmp_path, optimizer):
    config = dataclasses.replace(TINY_CONFIG, optimizer=optimizer)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    loop.train([pictures], whole, config)
    calls = iter(range(100))
    stopped = loop.train([pictures], parts, config, stop=lambda: next(calls) == 4)
    assert (stopped.step, stopped.steps) == (5, 12)
    loop.train([pictures], parts, config, resume=RunFiles(parts).checkpoint)
    expected, resumed = (load_file(RunFiles(out).checkpoint) for out in (whole, parts))
    assert expected.keys() == resumed.keys()
    for name in expected:
        assert torch.equal(expected[name], resumed[name]), name


def test_ctrl_c_saves_and_resume_goes_on(run, pictures, tmp_path, monkeypatch):
    out = tmp_path / "w.safetensors"
    take = step.train_step

    def interrupted(state, *rest, **named):
        if state.step == 5:
            signal.raise_signal(signal.SIGINT)
        return take(state, *rest, **named)

    monkeypatch.setattr(step, "train_step", interrupted)
    ran = run("train", pictures, *TINY, "--steps", 10, "--out", out)
    assert ran.code == 130
    assert "stopped at step 6 of 10" in ran.stderr
    assert out.exists()
    monkeypatch.undo()
    again = run("train", pictures, "--out", out, "--resume", "auto", "--json")
    assert again.code == 0, again.stderr
    assert again.json["step"] == 10


def scores_of(monkeypatch, *psnrs):
    """Let validations score these, one after the other."""
    following = iter(psnrs)
    monkeypatch.setattr(loop, "validate", lambda *_: [Score(25, next(following), 0.5, 20, 0.5)])
    monkeypatch.setattr(loop, "MIN_STEPS_BETWEEN_VALIDATIONS", 4)
    monkeypatch.setattr(loop, "VALIDATIONS", 3)


def test_an_interruption_does_not_decide_which_weights_are_the_best(pictures, tmp_path, monkeypatch):
    """At step 2 there are no weights yet, and those at hand stand in; better ones at step 6 do not count either."""
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    scores_of(monkeypatch, 30, 31, 29)
    loop.train([pictures], whole, TINY_CONFIG)

    def go_on(psnrs, steps):
        scores_of(monkeypatch, *psnrs)
        calls = iter(range(1, 100))
        resume = RunFiles(parts).checkpoint
        resume = resume if resume.exists() else None
        loop.train([pictures], parts, TINY_CONFIG, resume=resume, stop=lambda: next(calls) == steps)
        return load_weights(parts).recipe["step"]

    assert go_on([40], 2) == 2
    assert go_on([30, 41], 4) == 4
    assert go_on([31, 29], 100) == 8
    expected, resumed = load_file(whole), load_file(parts)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_a_training_killed_before_its_first_checkpoint_begins_again(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    out.with_suffix("").mkdir()
    command = ("train", pictures, *QUICK, "--steps", 2, "--out", out, "--resume", "auto")
    assert run(*command).code == 0
    (out.with_suffix("") / "checkpoint.safetensors").unlink()
    ran = run(*command)
    assert ran.code == 2
    assert "left no checkpoint" in ran.stderr
    assert out.exists()


def test_a_training_begun_anew_leaves_no_earlier_one_to_go_on_from(run, pictures, tmp_path, monkeypatch):
    out = tmp_path / "w.safetensors"
    folder = out.with_suffix("")
    assert run("train", pictures, *QUICK, "--steps", 2, "--out", out).code == 0
    before = out.read_bytes()

    def killed(*_, **__):
        raise RuntimeError("killed")

    monkeypatch.setattr(step, "train_step", killed)
    anew = ("train", pictures, *QUICK, "--steps", 9, "--out", out, "--overwrite")
    with pytest.raises(RuntimeError, match="killed"):
        run(*anew, "--init", folder / "last.safetensors")
    assert not (folder / "checkpoint.safetensors").exists()
    assert (folder / "last.safetensors").exists()  # What it starts from stays.
    with pytest.raises(RuntimeError, match="killed"):
        run(*anew)
    assert not (folder / "last.safetensors").exists()
    assert out.read_bytes() == before


@pytest.mark.parametrize("lost", [False, True])
def test_a_finished_training_resumed_elsewhere_brings_its_best_weights(run, pictures, tmp_path, monkeypatch, lost):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    scores_of(monkeypatch, 30, 31, 29, 25, 25)
    assert run("train", pictures, *QUICK, "--steps", 12, "--out", first).code == 0
    expected = load_file(first)
    if lost:
        first.unlink()
        expected = load_file(tmp_path / "a" / "last.safetensors")
    elsewhere = ("train", pictures, "--resume", tmp_path / "a" / "checkpoint.safetensors", "--out", second)
    ran = run(*elsewhere)
    assert ran.code == 0, ran.stderr
    found = load_file(second)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert load_weights(second).description.name == "b"
    assert run("train", pictures, "--resume", "auto", "--out", second).code == 0
    assert run(*elsewhere).code == 2  # It would write over what is there.


def test_a_finished_training_tells_its_scores_even_if_its_log_was_cut_short(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    log = out.with_suffix("") / "log.jsonl"
    command = ("train", pictures, *QUICK, "--steps", 2, "--out", out, "--json")
    first = run(*command)
    assert first.code == 0
    lines = log.read_text()
    log.write_text(lines + '{"step": 2, "lo')
    ran = run(*command, "--resume", "auto")
    assert ran.code == 0, ran.stderr
    assert log.read_text() == lines
    assert "complete already, at step 2" in ran.stderr
    assert ran.json["scores"] == first.json["scores"]


def test_a_training_among_its_own_pictures_does_not_read_what_it_wrote(run, pictures, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    shutil.copytree(pictures, folder)
    monkeypatch.chdir(folder)
    assert run("train", ".", *QUICK, "--steps", 2).code == 0
    assert run("train", ".", *QUICK, "--steps", 2, "--activation", "tanh").code == 0
    ran = run("train", ".", *QUICK, "--steps", 2, "--resume", "auto")
    assert ran.code == 0, ran.stderr
    assert load_weights(folder / "images-denoise-tanh.safetensors").recipe["pictures"] == 3


def test_folders_are_known_by_their_names_however_they_are_given(pictures, tmp_path, monkeypatch):
    """That of the pairs also tells `restore` that clipped noise is known to the weights."""
    monkeypatch.chdir(shutil.copytree(pictures, tmp_path / "twins"))
    inner, out = shutil.copytree(pictures, tmp_path / "images") / "inner", tmp_path / "w.safetensors"
    inner.mkdir()
    loop.train([inner / ".."], out, dataclasses.replace(TINY_CONFIG, steps=1), paired=Path())
    weights = load_weights(out)
    assert weights.recipe["folders"] == ["images"]
    assert weights.recipe["paired"] == "twins"
    assert not Restorer(out)._knows_no_clipping


def test_pictures_to_validate_on_are_not_trained_on(run, pictures, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "w.safetensors"
    shutil.copytree(pictures, folder)
    shutil.copytree(pictures, folder / "val")
    options = (*QUICK, "--steps", 2, "--val", folder / "val", "--out", out)
    assert run("train", folder, *options).code == 0
    assert load_weights(out).recipe["pictures"] == 4
    twins = shutil.copytree(pictures, tmp_path / "twins")
    for path in [*(folder / "val").iterdir()]:
        shutil.copy(path.rename(path.with_stem(f"held-out-{path.stem}")), twins)
    assert run("train", folder, "--paired", twins, *options, "--overwrite").code == 0


def test_nothing_is_written_into_a_folder_of_pictures(run, pictures, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(pictures, folder / "inside")
    before = sorted(folder.rglob("*"))
    for written in (folder, folder / "inside"):
        ran = run("train", folder, *QUICK, "--steps", 2, "--out", f"{written}.safetensors", "--overwrite")
        assert ran.code == 2
        assert "holds pictures; give another --out" in ran.stderr
    assert sorted(folder.rglob("*")) == before


def test_pictures_of_any_depth_are_rounded_to_8_bits(run, pictures, tmp_path):
    values = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    tifffile.imwrite(tmp_path / "float.tif", values * 1.2 - 0.1, photometric="rgb")
    tifffile.imwrite(tmp_path / "deep.tif", np.rint(values * 65535).astype(np.uint16), photometric="rgb")
    assert np.array_equal(read_rgb8(tmp_path / "float.tif"), np.rint(np.clip(values * 1.2 - 0.1, 0, 1) * 255))
    assert np.array_equal(read_rgb8(tmp_path / "deep.tif"), np.rint(np.rint(values * 65535) / 257))
    ran = run("train", pictures, *QUICK, "--steps", 2, "--val", tmp_path, "--out", tmp_path / "w.safetensors")
    assert ran.code == 0, ran.stderr


@pytest.mark.parametrize(("options", "side"), [((), 11), (("--scale", 2), 15)])
def test_pictures_too_small_to_validate_on_are_named_and_left_out(run, pictures, tmp_path, options, side):
    held_out, out = tmp_path / "val", tmp_path / "w.safetensors"
    held_out.mkdir()
    Image.new("RGB", (side, 64)).save(held_out / "small.png")
    command = ("train", pictures, *QUICK, *options, "--steps", 2, "--val", held_out, "--out", out)
    ran = run(*command)
    assert ran.code == 1
    assert f"small.png: {side} x 64 is smaller than" in ran.stderr
    assert "give others with --val" in ran.stderr
    shutil.copy(pictures / "coffee.png", held_out)
    ran = run(*command)
    assert ran.code == 0, ran.stderr
    assert f"small.png: {side} x 64 is smaller than" in ran.stderr


@pytest.mark.parametrize("options", [("--scale", 2), ("--task", "decompress", "--quality", "10:10")])
def test_blank_pages_do_not_drown_out_the_other_scores(run, pictures, tmp_path, options):
    held_out, out = tmp_path / "val", tmp_path / "w.safetensors"
    held_out.mkdir()
    Image.new("L", (64, 64), 255).save(held_out / "white.png")
    command = ("train", pictures, *QUICK, *options, "--steps", 2, "--val", held_out, "--json", "--overwrite")
    alone = run(*command, "--out", out)
    assert alone.code == 0, alone.stderr
    assert alone.json["scores"][0]["input_psnr"] is None
    shutil.copy(pictures / "coffee.png", held_out)
    both = run(*command, "--out", out)
    (held_out / "white.png").unlink()
    assert run(*command, "--out", tmp_path / "v.safetensors").json["scores"] == both.json["scores"]
    written = [path.read_bytes() for path in (*out.with_suffix("").iterdir(), out)]
    assert not any(b"Infinity" in data for data in written)


def test_time_becomes_a_saved_number_of_steps(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    ran = run("train", pictures, *TINY, "--max-time", "2s", "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    saved = tomllib.loads((out.with_suffix("") / "config.toml").read_text())
    assert saved["steps"] == ran.json["steps"] >= loop.TIMED_STEPS


@given(st.floats(10, 1e5), st.floats(1e-3, 10), st.floats(0, 20))
def test_steps_and_validations_fill_the_time(time, step, validation):
    steps = loop.steps_within(time, step, validation)
    whole = steps * step + steps / loop.steps_between_validations(steps) * validation
    assert steps == loop.TIMED_STEPS or whole == pytest.approx(time, abs=2 * step + validation)


def test_steps_that_are_not_finite_change_nothing_and_stop_the_run_in_the_end(pictures, tmp_path, monkeypatch):
    state = loop.new_state(TINY_CONFIG, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    batch = draw_batch(PictureSet(sorted(pictures.iterdir()), 16), TINY_CONFIG, find_task("denoise"), 0)
    broken = Batch(np.full_like(batch.degraded, np.nan), batch.clean, batch.levels)
    step.train_step(state, broken, TINY_CONFIG, find_task("denoise"), torch.device("cpu"))
    assert state.skipped == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in state.network.state_dict().items())

    monkeypatch.setattr(step, "compute_loss", lambda _, error: error.mean() * float("nan"))
    with pytest.raises(DeconvError, match=r"diverged.*--lr"):
        loop.train([pictures], tmp_path / "w.safetensors", dataclasses.replace(TINY_CONFIG, steps=50))


@pytest.mark.parametrize(("psnr", "proposed"), [(25, True), (15, False)])
def test_a_training_that_diverges_proposes_its_last_weights_unless_they_are_blown_up(
    pictures, tmp_path, monkeypatch, psnr, proposed
):
    out = tmp_path / "my own.safetensors"
    scores_of(monkeypatch, psnr)

    def diverge(progress):
        if progress.step == 4:
            monkeypatch.setattr(step, "compute_loss", lambda _, error: error.mean() * float("nan"))

    monkeypatch.setattr(divergence, "MAX_IN_A_ROW", 3)
    with pytest.raises(DeconvError, match="the training diverged") as raised:
        loop.train([pictures], out, TINY_CONFIG, report=diverge)
    advice = shlex.split(str(raised.value).partition("at a lower rate: ")[2])
    assert advice[0] == "--lr"
    assert advice[2:] == [*(("--init", str(RunFiles(out).last)) if proposed else ()), "--overwrite"]


def test_unusable_pictures_are_named_and_left_out(run, pictures, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for source in pictures.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    ran = run("train", folder, *TINY, "--steps", 2, "--val", pictures, "--out", tmp_path / "w.safetensors")
    assert ran.code == 0
    assert "broken.png" in ran.stderr
    assert "small.png: 8 x 8" in ran.stderr


def test_it_learns_to_decompress_starting_from_a_denoiser(run, pictures, tmp_path):
    denoiser, out = tmp_path / "denoiser.safetensors", tmp_path / "w.safetensors"
    assert run("train", pictures, *TINY, "--steps", 100, "--out", denoiser).code == 0
    options = ("--task", "decompress", "--quality", "10:10", "--init", denoiser, "--val", pictures)
    ran = run("train", pictures, *TINY, *options, "--steps", 250, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["level"] == 10
    assert score["psnr"] > score["input_psnr"] + 0.4
    description = load_weights(out).description
    assert (description.task, description.architecture.condition_planes) == ("decompress", 0)
    back = run("train", pictures, *TINY, "--steps", 1, "--init", out, "--out", tmp_path / "v.safetensors")
    assert back.code == 2


def test_gray_patches_of_pairs_are_told_the_noise_of_the_luma(pictures, tmp_path):
    """Noise that is independent in the colours is weaker there; the network is told what it sees."""
    rng, twins = np.random.default_rng(0), {}
    for path in sorted(pictures.iterdir()):
        clean = np.asarray(Image.open(path).convert("RGB"), float)
        twins[path] = tmp_path / f"{path.stem}.bmp"
        noisy = np.clip(np.rint(clean + rng.normal(0, 20, clean.shape)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(twins[path])
    found = PictureSet(sorted(twins), 16, twins)
    luma = 20 * np.sqrt(np.square([0.299, 0.587, 0.114]).sum())
    for share, level in ((0, 20), (1, luma)):
        config = dataclasses.replace(TINY_CONFIG, gray_share=share, augment=())
        assert draw_batch(found, config, find_task("denoise"), 0).levels == pytest.approx(level, abs=3)


def test_levels_are_uniform_over_their_range_or_mostly_low(pictures):
    """A level lies as far into its range as a power of a uniform number: with 2 half of them in its lower quarter."""
    found, task = PictureSet(sorted(pictures.iterdir()), 16), find_task("denoise")
    for power, median in ((1.0, 30), (2.0, 20)):
        config = dataclasses.replace(
            TINY_CONFIG, batch=400, patch=16, level_range=(10, 50), level_power=power, augment=()
        )
        levels = draw_batch(found, config, task, 0).levels
        assert levels.min() >= 10
        assert levels.max() == pytest.approx(50, abs=1)
        assert np.median(levels) == pytest.approx(median, abs=2)


def test_it_learns_from_pairs(run, pictures, tmp_path):
    """Twins with noise in the file, in another format: what is learned undoes that noise."""
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    rng = np.random.default_rng(0)
    for path in pictures.iterdir():
        clean = np.asarray(Image.open(path)).astype(float)
        twin = np.clip(np.rint(clean + rng.normal(0, 20, clean.shape)), 0, 255).astype(np.uint8)
        Image.fromarray(twin).save(noisy / f"{path.stem}.bmp")
    out = tmp_path / "w.safetensors"
    ran = run("train", pictures, "--paired", noisy, "--val", pictures, *TINY, "--steps", 200, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["level"] == pytest.approx(20, abs=3)
    assert score["psnr"] > score["input_psnr"] + 3
    next(noisy.iterdir()).unlink()
    ran = run("train", pictures, "--paired", noisy, *TINY, "--out", tmp_path / "v.safetensors")
    assert ran.code == 1
    assert "has 0 twins" in ran.stderr


def test_the_level_of_pairs_is_noise_and_never_called_a_quality(pictures, tmp_path):
    """Pairs without noise lie below the lowest quality there is."""
    degraded, out = tmp_path / "degraded", tmp_path / "w.safetensors"
    degraded.mkdir()
    for path in pictures.iterdir():
        smooth = Image.open(path).filter(ImageFilter.GaussianBlur(4))
        smooth.save(degraded / path.name)
    config = dataclasses.replace(TINY_CONFIG, task="decompress", level_range=(50, 60), steps=1)
    (score,) = loop.train([pictures], out, config, paired=degraded).scores
    assert score.level < 5
    protocol = load_weights(out).scores["protocol"]
    assert "noise level of the pairs" in protocol
    assert "quality" not in protocol


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--activation", "rellu"), "did you mean 'relu'"),
        (("--task", "denoised"), "did you mean 'denoise'"),
        (("--augment", "flop"), "did you mean 'flip'"),
        (("--task", "sr", "--augment", "cutblur"), "cutblur"),
        (("--architecture", "pyramids"), "did you mean 'pyramid'"),
        (("--initialisation", "zero"), "valid: default, matched"),
        (("--optimizer", "adam"), "valid: adamw, muon, sgd"),
        (("--noise-level", "50:10"), "LOW:HIGH"),
        (("--quality", "10:40"), "--task decompress"),
        (("--imbalance", "weights"), "--imbalance: not for --task denoise"),
        (("--noise-level", "loud"), "--noise-level"),
        (("--noise-level", "0:inf"), "HIGH <= 255"),
        (("--task", "decompress", "--quality", "5:120"), "1 <= LOW <= HIGH <= 100"),
        (("--lr", "nan"), "rates must be positive"),
        (("--lr", 0), "0.0 is not in the range"),
        (("--clip", "nan"), "clip must be positive"),
        (("--patch", 33), "multiple of 8"),
        (("--max-time", "soon"), "--max-time"),
        (("--out", "w.pt"), ".safetensors"),
        (("--init", "nothing.safetensors"), "no such weights file"),
        (("--config", "nothing.toml"), "nothing.toml"),
    ],
)
def test_bad_options_are_refused_before_any_work(run, pictures, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    ran = run("train", pictures, *arguments)
    assert ran.code == 2
    assert message in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_value_out_of_range_is_told_with_where_it_may_come_from(run, pictures, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("lr = -1")
    assert run("train", pictures, "--config", recipe).stderr.startswith(f"error: {recipe}: rates")
    recipe.write_text("lr = 0.01")
    both = run("train", pictures, "--config", recipe, "--clip", "nan")
    assert both.stderr.startswith(f"error: {recipe} and options: clip")
    assert run("train", pictures, "--clip", "nan").stderr.startswith("error: options: clip")


def test_bad_folders_and_outputs_are_refused(run, pictures, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no such folder" in run("train", tmp_path / "nowhere").stderr
    nothing = run("train", empty, "--out", tmp_path / "w.safetensors")
    assert nothing.code == 3
    assert str(empty) in nothing.stderr
    assert not (tmp_path / "w").exists()

    (tmp_path / "w.safetensors").write_bytes(b"precious")
    ran = run("train", pictures, "--out", tmp_path / "w.safetensors")
    assert ran.code == 2
    assert (tmp_path / "w.safetensors").read_bytes() == b"precious"

    (tmp_path / "file").write_bytes(b"")
    ran = run("train", pictures, *TINY, "--steps", 1, "--out", tmp_path / "file" / "w.safetensors")
    assert ran.code == 2
    assert "cannot be made" in ran.stderr


def test_flags_win_over_toml_and_unknown_keys_are_errors(run, pictures, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('widths = [4, 6]\nblocks = [0, 1]\npatch = 16\nbatch = 2\nsteps = 3\nactivation = "tanh"\n')
    out = tmp_path / "w.safetensors"
    assert run("train", pictures, "--config", config, "--activation", "elu", "--out", out).code == 0
    architecture = load_weights(out).description.architecture
    assert (architecture.widths, architecture.activation) == ((4, 6), "elu")
    config.write_text("stepz = 3\n")
    ran = run("train", pictures, "--config", config, "--out", tmp_path / "v.safetensors")
    assert ran.code == 2
    assert "did you mean 'steps'" in ran.stderr


def test_resuming_with_other_values_is_refused(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    assert run("train", pictures, *TINY, "--steps", 2, "--out", out).code == 0
    ran = run("train", pictures, "--out", out, "--resume", "auto", "--activation", "tanh", "--noise-level", "0:50")
    assert ran.code == 2
    assert "other values of --activation, --noise-level;" in ran.stderr


def test_init_starts_from_given_weights(run, pictures, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert run("train", pictures, *TINY, "--steps", 3, "--out", first).code == 0
    assert run("train", pictures, *TINY, "--steps", 1, "--lr", 1e-9, "--init", first, "--out", second).code == 0
    a, b = load_file(first), load_file(second)
    assert torch.allclose(a["bottom.0.conv1.weight"].float(), b["bottom.0.conv1.weight"].float(), atol=1e-3)
    ran = run(
        "train", pictures, "--widths", "4,4", "--blocks", "0,0", "--init", first, "--out", tmp_path / "c.safetensors"
    )
    assert ran.code == 2


def test_a_resumed_training_keeps_what_it_started_from(run, pictures, tmp_path):
    first, other, out = (tmp_path / f"{name}.safetensors" for name in ("first", "other", "w"))
    for seed, path in enumerate((first, other)):
        loop.train([pictures], path, dataclasses.replace(TINY_CONFIG, seed=seed, steps=1))
    loop.train([pictures], out, TINY_CONFIG, init=first, stop=lambda: True)
    resume = ("train", pictures, "--out", out, "--resume", "auto")
    ran = run(*resume, "--init", other)
    assert ran.code == 2
    assert "did not start from other.safetensors" in ran.stderr
    assert run(*resume).code == 0
    weights = load_weights(out)
    assert (weights.recipe["init"], weights.recipe["step"]) == ("first.safetensors", TINY_CONFIG.steps)


def test_checkpoints_that_do_not_say_what_they_started_from_are_gone_on_with(pictures, tmp_path):
    """As those of earlier versions; what is given is believed, as it was then."""
    first, out = tmp_path / "first.safetensors", tmp_path / "w.safetensors"
    loop.train([pictures], first, dataclasses.replace(TINY_CONFIG, steps=1))
    loop.train([pictures], out, TINY_CONFIG, init=first, stop=lambda: True)
    checkpoint = RunFiles(out).checkpoint
    with safe_open(checkpoint, "pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    del header["init"]
    save_file(load_file(checkpoint), checkpoint, {METADATA_KEY: json.dumps(header)})
    loop.train([pictures], out, TINY_CONFIG, init=first, resume=checkpoint)
    assert load_weights(out).recipe["init"] == "first.safetensors"


def test_init_gives_the_shape_that_is_left_open(run, pictures, tmp_path):
    first, config = tmp_path / "a.safetensors", tmp_path / "c.toml"
    config.write_text(
        'widths = [8, 12]\nblocks = [1, 1]\ninner = [4, 3, 2]\nskips = false\nupsampling = "resize"\nactivation = "elu"'
    )
    quick = ("--patch", 16, "--batch", 2, "--steps", 1)
    assert run("train", pictures, "--config", config, *quick, "--out", first).code == 0
    shape = load_weights(first).description.architecture
    config.write_text('activation = "prelu"')

    def shape_with(*options):
        out = tmp_path / "b.safetensors"
        ran = run("train", pictures, *quick, "--init", first, *options, "--out", out, "--overwrite")
        assert ran.code == 0, ran.stderr
        return load_weights(out).description.architecture

    assert shape_with() == shape
    assert shape_with("--config", config) == dataclasses.replace(shape, activation="prelu")
    assert shape_with("--activation", "tanh") == dataclasses.replace(shape, activation="tanh")
    assert shape_with("--blocks", "2,1") == dataclasses.replace(shape, blocks=(2, 1), inner=())
    assert shape_with("--widths", "8,12") == dataclasses.replace(shape, inner=())


def test_bundled_weights_can_be_started_from(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    quick = ("--patch", 16, "--batch", 1, "--steps", 1, "--val", pictures)
    ran = run("train", pictures, *quick, "--init", "denoise", "--noise-level", "25:25", "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["psnr"] > score["input_psnr"] + 8


def test_a_pruned_network_can_grow_what_changes_nothing_yet(run, pictures, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    config = tmp_path / "c.toml"
    small = "widths = [8, 12]\npatch = 32\nbatch = 2\nresidual_gain = 0.0\nsteps = 2\n"
    config.write_text(small + "blocks = [1, 1]\ninner = [4, 3, 2]")
    assert run("train", pictures, "--config", config, "--lr", 0.01, "--out", first).code == 0
    config.write_text(small + "blocks = [2, 1]\ninner = [6, 12, 3, 5, 12]\nadam_lr = 1e-9")
    ran = run("train", pictures, "--config", config, "--lr", 1e-9, "--init", first, "--out", second)
    assert ran.code == 0, ran.stderr
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = (load_weights(file).build()(x, torch.tensor([0.1])) for file in (first, second))
    assert torch.allclose(before, after, atol=2e-3)
    grown = load_weights(second).parameters
    assert not grown["encoder.0.0.conv2.weight"][:, 4:].any()
    assert np.abs(grown["encoder.0.0.conv1.weight"][4:]).mean() > 0.05
    config.write_text(small + "blocks = [2, 1]\ninner = [3, 12, 3, 2, 12]")
    assert run("train", pictures, "--config", config, "--init", first, "--out", tmp_path / "c.safetensors").code == 2


@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_with_their_definition(name):
    error = np.random.default_rng(0).normal(0, 0.1, (3, 2, 5, 7))
    error[0] *= 10
    expected = {
        "l1": np.abs(error).mean(),
        "charbonnier": np.sqrt(error**2 + 1e-6).mean(),
        "mse": (error**2).mean(),
        "rmse": np.mean([np.sqrt((patch**2).mean()) for patch in error]),
    }
    assert step.compute_loss(name, torch.from_numpy(error)).item() == pytest.approx(expected[name], rel=1e-5)


def test_no_loss_breaks_down_without_an_error():
    error = torch.zeros(2, 3, 4, 4, requires_grad=True)
    for name in LOSSES:
        step.compute_loss(name, error).backward()
    assert torch.isfinite(error.grad).all()


def test_validation_pictures_are_held_out_by_the_hash_of_their_path(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        Image.new("L", (4, 4)).save(folder / f"{number}.png")
    train, held_out = split_pictures([folder], None)
    assert len(held_out) == 4
    assert not set(train) & set(held_out)
    moved = folder.rename(tmp_path / "moved")
    assert [path.name for path in split_pictures([moved], None)[1]] == [path.name for path in held_out]


def test_a_picture_in_folders_that_overlap_is_held_out_of_all_and_counts_once(pictures, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(pictures, folder / "inner")
    for number in range(28):
        shutil.copy(pictures / "coffee.png", folder / f"{number}.png")
    given = [folder, folder / "inner", folder / ".." / "images"]
    train, held_out = split_pictures(given, None)
    assert len({path.resolve() for path in held_out}) == len(held_out) == len(split_pictures([folder], None)[1])
    assert not {path.resolve() for path in train} & {path.resolve() for path in held_out}
    assert len(train) > len({path.resolve() for path in train})  # Given twice, they weigh twice.


def test_of_what_is_held_out_only_the_crops_stay_in_memory(pictures, tmp_path, monkeypatch):
    held_out, kept, alive = tmp_path / "val", [], []
    held_out.mkdir()
    shutil.copy(pictures / "coffee.png", held_out)
    keep = PictureSet._keep

    def note(self, index, picture):
        kept.append(weakref.ref(picture))
        keep(self, index, picture)

    monkeypatch.setattr(PictureSet, "_keep", note)
    config = dataclasses.replace(TINY_CONFIG, steps=2)
    out = tmp_path / "w.safetensors"
    loop.train([pictures], out, config, validation=held_out, report=lambda _: alive.append(kept[0]() is not None))
    assert alive == [False, False]


def test_pictures_that_are_trained_and_validated_on_are_told(run, pictures, tmp_path):
    ran = run("train", pictures, *QUICK, "--steps", 1, "--val", pictures, "--out", tmp_path / "w.safetensors")
    assert ran.code == 0
    assert f"{pictures}: {len(list(pictures.iterdir()))} of the pictures to validate on are trained on" in ran.stderr


def test_what_cannot_be_scored_is_not_held_out_where_there_are_others(tmp_path):
    for number in range(20):
        Image.new("L", (32, 32)).save(tmp_path / f"{number}.png")
    first, second = split_pictures([tmp_path], None)[1]
    first.write_bytes(b"damaged")
    Image.new("L", (20, 40)).save(second)
    _, held_out = split_pictures([tmp_path], None)
    assert len(held_out) == 2
    assert not {first, second} & set(held_out)


def cut_short(path):
    """Cut the data of a picture, not its header."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_picture_is_not_held_out_where_there_are_others(run, pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "images")
    (first,) = split_pictures([folder], None)[1]
    cut_short(first)
    ran = run("train", folder, *QUICK, "--steps", 2, "--out", tmp_path / "w.safetensors")
    assert ran.code == 0, ran.stderr
    assert split_pictures([folder], None)[1] != [first]


def test_damaged_pictures_to_validate_on_are_left_out_and_none_counts_twice(run, pictures, tmp_path):
    held_out = tmp_path / "val"
    held_out.mkdir()
    shutil.copy(pictures / "chelsea.png", held_out / "bad.png")
    cut_short(held_out / "bad.png")
    ran = run("train", pictures, *QUICK, "--steps", 2, "--val", held_out, "--out", tmp_path / "w.safetensors")
    assert ran.code == 1
    assert "bad.png" in ran.stderr
    assert "left out of the validation" in ran.stderr
    assert "to validate on, no picture" in ran.stderr
    shutil.copy(pictures / "coffee.png", held_out)
    found = read_held_out(sorted(held_out.iterdir()), 16)
    assert found.paths == [held_out / "coffee.png"]
    assert len(make_cases(found, find_task("denoise"), dataclasses.replace(TINY_CONFIG, level_range=(25, 25)))) == 1


def test_two_pictures_cannot_have_one_twin(run, pictures, tmp_path):
    other = shutil.copytree(pictures, tmp_path / "other")
    out = ("--out", tmp_path / "w.safetensors")
    for options in ((pictures, "--val", other), (pictures, other)):
        ran = run("train", *options, "--paired", pictures, *QUICK, "--steps", 1, *out)
        assert ran.code == 1
        assert "would be the twin of both" in ran.stderr
    assert run("train", pictures, pictures, "--paired", pictures, *QUICK, "--steps", 1, *out).code == 0


def test_float_samples_of_any_range_are_trained_on(tmp_path):
    ramp = np.linspace(0, 200, 32 * 32, dtype=np.float32).reshape(32, 32)
    tifffile.imwrite(tmp_path / "measured.tif", ramp)
    pixels = read_rgb8(tmp_path / "measured.tif")
    np.testing.assert_allclose(pixels[..., 1], ramp * 255 / 256, atol=0.51)


@pytest.mark.parametrize("name", ["a$_$b", "写真", os.fsdecode(b"caf\xe9")])
def test_odd_names_of_folders_and_files_are_no_hindrance(run, pictures, tmp_path, recwarn, name):
    try:
        folder = shutil.copytree(pictures, tmp_path / name)
        (folder / "camera.png").rename(folder / f"{name}.png")
    except (OSError, UnicodeError):
        pytest.skip("this disk has no such names")
    ran = run("train", folder, *QUICK, "--steps", 2, "--out", tmp_path / f"{name}-w.safetensors")
    assert ran.code == 0, ran.stderr
    assert (tmp_path / f"{name}-w" / "curve.png").exists()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_step_that_needs_too_much_memory_says_what_helps(run, pictures, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")

    monkeypatch.setattr(step, "compute_gradients", fail)
    ran = run("train", pictures, *QUICK, "--steps", 2, "--out", tmp_path / "w.safetensors")
    assert ran.code == 1
    assert "smaller --batch or --patch" in ran.stderr


def test_flags_leave_aside_what_belongs_to_another_choice(run, pictures, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(tomli_w.dumps(dataclasses.replace(TINY_CONFIG, steps=2).to_dict()))
    out = tmp_path / "w.safetensors"
    options = ("--optimizer", "adamw", "--task", "decompress")
    ran = run("train", pictures, "--config", config, *options, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "adam_lr, level_range, lr, scale of the configuration left aside" in ran.stderr
    used = tomllib.loads((out.with_suffix("") / "config.toml").read_text())
    assert (used["lr"], used["level_range"]) == (0.001, [5, 95])
    ran = run("train", pictures, "--config", config, "--scale", 2, "--out", tmp_path / "sr.safetensors")
    assert ran.code == 0, ran.stderr


def test_another_architecture_leaves_aside_the_shape_of_the_configuration(run, pictures, tmp_path):
    config, out = tmp_path / "config.toml", tmp_path / "w.safetensors"
    pruned = dataclasses.replace(TINY_CONFIG, steps=1, inner=(3, 5, 3))
    config.write_text(tomli_w.dumps(pruned.to_dict()))
    command = ("train", pictures, "--config", config, "--out", out, "--overwrite")
    ran = run(*command, "--architecture", "rednet", "--blocks", 2)
    assert ran.code == 0, ran.stderr
    assert "inner, upsampling, widths of the configuration left aside: layout, blocks is another" in ran.stderr
    shape = load_weights(out).description.architecture
    assert (shape.layout, shape.widths, shape.blocks) == ("rednet", (64,), (2,))
    assert run(*command, "--blocks", "2,1").code == 0
    shape = load_weights(out).description.architecture
    assert (shape.widths, shape.blocks, shape.inner) == ((4, 6), (2, 1), ())


def test_resuming_with_other_pictures_to_validate_on_is_refused(run, pictures, tmp_path):
    out = ("--out", tmp_path / "w.safetensors")
    command = ("train", pictures, *QUICK, *out, "--steps", 2)
    assert run(*command, "--val", pictures).code == 0
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "camera.png").unlink()
    ran = run(*command, "--val", other, "--resume", "auto")
    assert ran.code == 2
    assert "to train or validate on" in ran.stderr
    ran = run("train", pictures, *QUICK, *out, "--val", pictures, "--resume", "auto", "--max-time", "1h")
    assert ran.code == 0
    assert "--max-time is not heeded" in ran.stderr


def test_the_command_to_try_next_can_be_pasted(run, pictures, tmp_path):
    out = tmp_path / "my own.safetensors"
    ran = run("train", pictures, *QUICK, "--steps", 2, "--out", out)
    assert f"try them: deconv restore --weights '{out}' INPUT OUTPUT" in ran.stderr


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('steps = "many"', "steps must be an integer, not 'many'"),
        ("lr = true", "lr must be a number, not True"),
        ("skips = 1", "skips must be true or false, not 1"),
        ("widths = 16", "widths must be an array, not 16"),
        ("task = 3", "task must be a string, not 3"),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(run, pictures, tmp_path, line, problem):
    config = tmp_path / "mine.toml"
    config.write_text(line)
    ran = run("train", pictures, "--config", config, "--out", tmp_path / "w.safetensors")
    assert ran.code == 2
    assert ran.stderr == f"error: {config}: {problem}\n"


def test_time_given_wins_over_steps_of_a_configuration_and_excludes_steps_given(run, pictures, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(tomli_w.dumps(dataclasses.replace(TINY_CONFIG, steps=2).to_dict()))
    command = ("train", pictures, "--config", config, "--max-time", "2s", "--out", tmp_path / "w.safetensors")
    ran = run(*command, "--json")
    assert ran.code == 0, ran.stderr
    assert "steps of the configuration left aside: --max-time" in ran.stderr
    assert ran.json["steps"] >= loop.TIMED_STEPS
    ran = run(*command, "--steps", 2, "--overwrite")
    assert ran.code == 2
    assert "--steps and --max-time exclude each other" in ran.stderr


def a_teacher(network, augment=("flip", "rotate")):
    return Teacher(network, torch.device("cpu"), torch.float32, augment)


def test_all_gray_training_is_validated_on_gray(pictures):
    found = PictureSet(sorted(pictures.iterdir()), 16)
    (case, *_) = make_cases(found, find_task("denoise"), dataclasses.replace(TINY_CONFIG, gray_share=1.0))
    shape = case.clean.shape
    assert (len(shape), case.degraded.shape) == (2, (*shape, 1))
    (case, *_) = make_cases(found, find_task("denoise"), dataclasses.replace(TINY_CONFIG, gray_share=0.9))
    assert case.clean.shape == case.degraded.shape == (*shape, 3)
    assert np.ptp(case.clean, axis=2).max() > 0


@pytest.mark.parametrize("options", [(), ("--scale", 2), ("--architecture", "rednet", "--widths", 8, "--blocks", 2)])
def test_gray_training_goes_on_from_colour_with_the_same_results(run, pictures, tmp_path, options):
    colour, gray = tmp_path / "colour.safetensors", tmp_path / "gray.safetensors"
    shape = (*(TINY if "rednet" not in options else TINY[4:]), *options)
    assert run("train", pictures, *shape, "--steps", 30, "--out", colour).code == 0
    still = ("--steps", 1, "--optimizer", "adamw", "--lr", 1e-9)
    ran = run("train", pictures, *shape, "--gray-share", 1, *still, "--init", colour, "--out", gray)
    assert ran.code == 0, ran.stderr
    assert load_weights(gray).description.architecture.channels == 1
    before, after = Restorer(colour, precision="fp32"), Restorer(gray, precision="fp32")
    level = {"noise_level": 20} if before.task.name == "denoise" else {}
    picture = data.camera()[100:164, 200:264].astype(np.float32) / 255
    expected = before.restore(picture, **level).pixels
    assert np.abs(expected - (picture if expected.shape == picture.shape else 0)).max() > 1e-3
    assert np.abs(after.restore(picture, **level).pixels - expected).max() < 1e-3


def test_a_network_of_one_channel_takes_colours_one_by_one(run, pictures, tmp_path):
    out = tmp_path / "gray.safetensors"
    assert run("train", pictures, *TINY, "--gray-share", 1, "--steps", 20, "--out", out).code == 0
    restorer = Restorer(out, precision="fp32")
    picture = data.astronaut()[:70, 100:180].astype(np.float32) / 255
    for tta in (False, True):
        restored = restorer.restore(picture, noise_level=20, tta=tta, tile=32).pixels
        for channel in range(3):
            alone = restorer.restore(picture[..., channel], noise_level=20, tta=tta).pixels
            assert np.abs(restored[..., channel] - alone).max() < 1e-5


def test_with_a_teacher_its_results_are_the_target(pictures):
    device, task = torch.device("cpu"), find_task("denoise")
    config = dataclasses.replace(TINY_CONFIG, steps=60, warmup=0.0)
    found = PictureSet(sorted(pictures.iterdir()), 16)
    state = loop.new_state(config, device)
    torch.nn.init.constant_(state.network.tail.bias, 0.02)
    taught = copy.deepcopy(state.network)
    torch.nn.init.constant_(taught.tail.bias, 0.05)
    teacher = a_teacher(taught, augment=())
    for state.step in range(60):
        batch = draw_batch(found, config, task, state.step)
        loss, _ = step.train_step(state, batch, config, task, device, teacher=teacher)
        if not state.step:
            assert loss == pytest.approx(0.03, rel=0.02)
    assert loss < 0.01


@pytest.mark.parametrize("scale", [1, 2])
def test_a_teacher_is_its_self_ensemble_on_the_average(scale):
    config = dataclasses.replace(TINY_CONFIG, task="sr" if scale > 1 else "denoise", scale=scale, level_range=())
    network = loop.new_state(config, torch.device("cpu")).network
    degraded = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    condition = None if scale > 1 else torch.tensor([0.1, 0.2])

    def run(patches):
        with torch.no_grad():
            return network(torch.from_numpy(patches), condition).numpy()

    teacher = a_teacher(network)
    mean = np.mean([teacher(degraded, condition, number).numpy() for number in range(8)], axis=0)
    assert mean == pytest.approx(self_ensemble(run, degraded.numpy()), abs=1e-5)
    unturned = a_teacher(network, augment=())(degraded, condition, 5).numpy()
    assert unturned == pytest.approx(run(degraded.numpy()), abs=1e-6)


def test_train_learns_from_a_teacher_and_resumes_only_with_the_same(run, pictures, tmp_path):
    first, out = tmp_path / "first.safetensors", tmp_path / "w.safetensors"
    assert run("train", pictures, *TINY, "--steps", 4, "--out", first).code == 0
    taught = run("train", pictures, *TINY, "--steps", 4, "--init", first, "--teacher", first, "--out", out)
    assert taught.code == 0, taught.stderr
    assert load_weights(out).recipe["teacher"] == f"first {load_weights(first).sha256[:16]}"
    again = ("train", pictures, *TINY, "--steps", 4, "--out", out, "--resume", "auto")
    assert run(*again, "--teacher", first).code == 0
    alone = run(*again)
    assert alone.code == 2
    assert "another teacher" in alone.stderr


def test_a_teacher_of_another_task_is_refused(run, pictures, tmp_path):
    ran = run("train", pictures, "--scale", 2, "--steps", 4, "--teacher", "sr-x3", "--out", tmp_path / "w.safetensors")
    assert ran.code == 2
    assert "sr-x3: cannot teach sr at scale 2" in ran.stderr
    assert not list(tmp_path.iterdir())
    small = ("--widths", "8", "--blocks", "1", "--patch", 30, "--steps", 4)
    ran = run("train", pictures, *small, "--teacher", "denoise", "--out", tmp_path / "w.safetensors")
    assert ran.code == 2
    assert "patch must be a multiple of 8" in ran.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs one of NVIDIA's GPUs")
@pytest.mark.parametrize("optimizer", step.CAPTURABLE)
def test_recorded_steps_do_what_unrecorded_ones_do(pictures, optimizer):
    device, task = torch.device("cuda"), find_task("denoise")
    config = dataclasses.replace(TINY_CONFIG, steps=30, optimizer=optimizer, lr=0.003, precision="fp32")
    found = PictureSet(sorted(pictures.iterdir()), 16)
    plain, recorded = loop.new_state(config, device), loop.new_state(config, device)
    take = step.find_step(recorded, config, task, device)
    assert isinstance(take, step.RecordedStep)
    for number in range(30):
        batch = draw_batch(found, config, task, number)
        if number == 20:
            batch = Batch(np.full_like(batch.degraded, np.nan), batch.clean, batch.levels)
        plain.step = recorded.step = number
        expected = step.train_step(plain, batch, config, task, device)
        assert take(batch) == pytest.approx(expected, rel=0.02, nan_ok=True), number
    assert take.graphs
    assert recorded.skipped == plain.skipped == 1
    for name, average in plain.average.items():
        assert torch.allclose(recorded.average[name], average, atol=1e-3, rtol=0.02), name


def test_batches_are_a_function_of_seed_and_step(pictures):
    sets = [PictureSet(sorted(pictures.iterdir()), 16) for _ in range(2)]
    task = find_task("denoise")
    draw_batch(sets[1], TINY_CONFIG, task, 3)  # what was drawn before does not matter
    first, second = (draw_batch(pictures, TINY_CONFIG, task, 7) for pictures in sets)
    assert np.array_equal(first.degraded, second.degraded)
    assert not np.array_equal(first.degraded, draw_batch(sets[0], TINY_CONFIG, task, 8).degraded)
    noise = first.degraded - first.clean
    assert noise.std(axis=(1, 2, 3)) * 255 == pytest.approx(first.levels, rel=0.1)


def test_batches_come_in_order_from_any_number_of_threads(pictures, monkeypatch):
    monkeypatch.setattr("deconv_cli.training.data.thread_limit", lambda: 5)
    task, found = find_task("denoise"), PictureSet(sorted(pictures.iterdir()), 16)
    one, several = (list(prefetch(found, TINY_CONFIG, task, range(3, 50), device)) for device in ("cpu", "cuda"))
    assert [step for step, _ in several] == list(range(3, 50))
    for (_, first), (_, second) in zip(one, several, strict=True):
        assert np.array_equal(first.degraded, second.degraded)


def test_gray_patches_carry_one_noise_in_three_channels(pictures):
    config = dataclasses.replace(TINY_CONFIG, gray_share=0.999)
    batch = draw_batch(PictureSet(sorted(pictures.iterdir()), 16), config, find_task("denoise"), 0)
    assert np.array_equal(batch.degraded[..., 0], batch.degraded[..., 1])
    assert np.array_equal(batch.degraded[..., 0], batch.degraded[..., 2])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_orthogonalised_matrices_have_singular_values_near_one(count, rows, columns, seed, bf16):
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(matrices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer_module, "has_fast_bf16", lambda _: bf16)
        result = orthogonalise(matrices) / max(1, rows / columns) ** 0.5
    after = torch.linalg.svdvals(result)
    assert after.max() < 1.3
    # Five steps lift singular values down to about a hundredth of the norm.
    norms = torch.linalg.matrix_norm(matrices)[:, None]
    assert after[values > 0.05 * norms].min() > 0.5


@pytest.mark.parametrize(("capability", "layout"), [("AVX2", "contiguous_format"), ("AVX512", "channels_last")])
def test_the_layout_of_a_training_suits_the_processor_and_changes_no_result(pictures, monkeypatch, capability, layout):
    task, cpu = find_task("denoise"), torch.device("cpu")
    batch = draw_batch(PictureSet(sorted(pictures.iterdir()), 16), TINY_CONFIG, task, 0)
    expected = loop.new_state(TINY_CONFIG, cpu)
    expected_loss, _ = step.train_step(expected, batch, TINY_CONFIG, task, cpu)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    state = loop.new_state(TINY_CONFIG, cpu)
    loss, _ = step.train_step(state, batch, TINY_CONFIG, task, cpu)
    memory_format = getattr(torch, layout)
    assert all(
        values.is_contiguous(memory_format=memory_format) for values in state.average.values() if values.ndim == 4
    )
    assert step.to_tensor(batch.clean, cpu).is_contiguous(memory_format=memory_format)
    assert loss == pytest.approx(expected_loss, rel=1e-4)


def test_muon_descends():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 3, 3, 3))
    target = torch.randn(6, 3, 3, 3)
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


@pytest.mark.parametrize("values", [{"steps": "many"}, {"batch": 2.5}, {"widths": 8}, {"seed": True}, {"lr": -1.0}])
def test_values_of_the_wrong_type_or_range_are_refused(values):
    with pytest.raises(UsageError, match=r"^c\.toml: "):
        config_from_dict(values, "c.toml")


def test_muon_is_refused_where_it_has_nothing_to_do(run, pictures, tmp_path):
    options = (
        "--architecture",
        "rednet",
        "--blocks",
        1,
        "--patch",
        32,
        "--steps",
        1,
        "--out",
        tmp_path / "w.safetensors",
    )
    ran = run("train", pictures, *options)
    assert (ran.code, "adamw" in ran.stderr) == (2, True)


def test_the_classic_network_is_an_architecture_of_train(run, pictures, tmp_path):
    out = tmp_path / "w.safetensors"
    options = ("--architecture", "rednet", "--widths", "8", "--blocks", "3", "--patch", 32, "--batch", 4)
    ran = run(
        "train", pictures, *options, "--noise-level", "25:25", "--lr", 0.02, "--steps", 250, "--out", out, "--json"
    )
    assert ran.code == 0, ran.stderr
    (score,) = ran.json["scores"]
    assert score["psnr"] > score["input_psnr"] + 2
    architecture = load_weights(out).description.architecture
    assert (architecture.layout, architecture.widths, architecture.blocks) == ("rednet", (8,), (3,))
    restored = tmp_path / "restored.png"
    assert run("restore", pictures / "chelsea.png", restored, "--weights", out).code == 0
    assert Image.open(restored).size == Image.open(pictures / "chelsea.png").size
    red30 = TrainConfig(layout="rednet").architecture
    assert red30.parameters == pytest.approx(1.04e6, rel=0.01)
    assert red30.multiply_adds == pytest.approx(1.036e6, rel=0.001)


def test_gradient_watch_logs_and_warns(run, pictures, tmp_path):
    """A deep sigmoid network without skips and with PyTorch's initialisation vanishes; a pyramid of relu does not."""
    out = tmp_path / "w.safetensors"
    deep = ("--architecture", "rednet", "--widths", "4", "--blocks", "10", "--no-skips", "--initialisation", "default")
    ran = run(
        "train", pictures, *deep, "--activation", "sigmoid", "--patch", 16, "--batch", 2, "--steps", 2, "--out", out,
        "--watch-gradients",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.stderr.count("warning: step 2: the gradients vanish") == 1
    assert "--initialisation matched" in ran.stderr
    lines = [json.loads(line) for line in (out.with_suffix("") / "log.jsonl").read_text().splitlines()]
    health = lines[0]["health"]
    assert health["first_over_last"] < 1e-6
    assert len(health["gradient"]) == 20
    assert max(health["slope"].values()) <= 0.25

    healthy = tmp_path / "v.safetensors"
    ran = run("train", pictures, *TINY, "--steps", 60, "--out", healthy, "--watch-gradients")
    assert "step 50: gradients healthy" in ran.stderr
    assert "warning" not in ran.stderr


def test_reports_of_compressions_are_no_pictures(tmp_path):
    from deconv_cli.training.data import find_clean

    for path in (tmp_path / "clean.png", tmp_path / "small" / "report.png"):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    (tmp_path / "small" / "report.json").write_text("{}")
    assert find_clean(tmp_path) == [tmp_path / "clean.png"]
