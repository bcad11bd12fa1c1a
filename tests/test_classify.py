"""The classifier: it learns real digits, handles rare classes, and says what is wrong with its folders."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deconv_cli.network.weights import load_weights
from deconv_cli.training import classification
from deconv_cli.training.config import ClassifyConfig
from deconv_cli.training.data import path_hash
from deconv_cli.training.labelled import (
    LabelledPictures,
    class_weights,
    draw_labelled,
    drawing_chances,
    find_classes,
    fit_square,
    read_labelled,
)

ROOT = Path(__file__).parents[1]
SMALL = ("--task", "classify", "--patch", 16, "--augment", "tilt,shift")


@pytest.fixture(scope="module")
def write_digits():
    spec = importlib.util.spec_from_file_location("write_digits", ROOT / "benchmarks" / "write_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_digits


@pytest.fixture(scope="module")
def digits(write_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture(scope="module")
def rare(write_digits, tmp_path_factory):
    """Five of the digits, with a tenth of the eights."""
    folder = tmp_path_factory.mktemp("rare")
    write_digits(folder, rare=8)
    for part in ("train", "val"):
        for digit in "04567":
            shutil.rmtree(folder / part / digit)
    return folder


def test_it_learns_digits_and_tells_them(run, digits, tmp_path):
    out = tmp_path / "digits.safetensors"
    ran = run("train", digits / "train", "--val", digits / "val", *SMALL, "--steps", 300, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["accuracy"] > 0.93
    matrix = np.array(ran.json["confusion"])
    assert matrix.sum() == 355
    assert ran.json["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    assert ran.json["recalls"]["3"] == pytest.approx(matrix[3, 3] / matrix[3].sum())
    assert ran.json["balanced_recall"] == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(1)))
    assert load_weights(out).description.classes == tuple("0123456789")

    zeros = sorted((digits / "val" / "0").iterdir())[:20]
    told = run("classify", *zeros, "--weights", out, "--top", 3, "--json").json_lines
    assert len(told) == 20
    assert sum(line["classes"][0]["class"] == "0" for line in told) >= 17
    shares = [entry["probability"] for entry in told[0]["classes"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)

    # Any size and depth, and a bad file among good ones.
    big, deep = tmp_path / "big.png", tmp_path / "deep.tif"
    Image.open(zeros[0]).convert("RGB").resize((300, 200)).save(big)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    tifffile.imwrite(deep, np.asarray(Image.open(big)).astype(np.float32) / 255, photometric="rgb")
    ran = run("classify", broken, big, deep, "--weights", out)
    assert ran.code == 1
    assert "broken.png" in ran.stderr
    assert ran.text.startswith(f"{big}: ")
    ran = run("classify", broken, big, deep, "--weights", out, "--json")
    assert ran.code == 1
    failed, first, second = ran.json_lines
    assert (failed["path"], failed["classes"]) == (str(broken), [])
    assert "broken.png" in failed["error"]
    assert first["error"] is None
    assert second["classes"] == first["classes"]

    refused = run("restore", big, tmp_path / "o.png", "--weights", out)
    assert refused.code == 2
    assert "deconv classify" in refused.stderr
    assert run("classify", big, "--weights", "denoise").code == 2


def test_the_imbalance_options_help_a_rare_class(run, rare, tmp_path):
    recalls = {}
    for option in ("none", "sampling", "weights"):
        out = tmp_path / f"{option}.safetensors"
        ran = run(
            "train", rare / "train", "--val", rare / "val", *SMALL, "--steps", 150, "--out", out, "--json",
            "--imbalance", option,
        )  # fmt: skip
        assert ran.code == 0, ran.stderr
        recalls[option] = ran.json["balanced_recall"]
        assert ("--imbalance" in ran.stderr) == (option == "none")
    assert recalls["sampling"] > recalls["none"] + 0.02
    assert recalls["weights"] > recalls["none"] + 0.02


def labelled(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.zeros((len(labels), 8, 8, 3), np.uint8)
    pixels[:] = (labels * 10)[:, None, None, None]
    return LabelledPictures(pixels, labels, tuple(f"class {at}" for at in range(len(counts))))


def test_sampling_draws_classes_alike_and_weights_balance_the_loss():
    pictures = labelled([90, 10])
    chances = drawing_chances(pictures, "sampling")
    assert chances.sum() == pytest.approx(1)
    assert chances[pictures.labels == 1].sum() == pytest.approx(0.5)
    weights = class_weights(pictures, "weights")
    assert weights @ pictures.counts == pytest.approx(100)
    assert weights[1] / weights[0] == pytest.approx(9)
    config = ClassifyConfig(patch=8, batch=400, augment=(), imbalance="sampling")
    assert draw_labelled(pictures, config, 0).targets[:, 1].mean() == pytest.approx(0.5, abs=0.1)


def test_mixup_blends_pictures_and_targets_alike():
    pictures = labelled([20, 20])
    config = ClassifyConfig(patch=8, batch=64, augment=("mixup",))
    batch = draw_labelled(pictures, config, 0)
    assert batch.targets.sum(1) == pytest.approx(np.ones(64))
    assert batch.images[:, 0, 0, 0] * 255 == pytest.approx(10 * batch.targets[:, 1], abs=1e-3)
    assert 0.2 < (batch.targets.max(1) < 1).mean() < 0.5  # half are blended, half of those with their own class


@pytest.mark.parametrize("shape", [(8, 8), (3, 40), (64, 17), (1, 1)])
def test_any_picture_fits_into_a_square(shape):
    picture = np.full((*shape, 3), 99, np.uint8)
    square = fit_square(picture, 32)
    assert square.shape == (32, 32, 3)
    assert (square == 99).all()


def test_a_study_among_the_classes_is_none(tmp_path):
    for name in ("a", "b", "mine-study"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    for name in ("study.json", "crops.npz"):
        (tmp_path / "mine-study" / name).touch()
    assert set(find_classes(tmp_path)) == {"a", "b"}


def test_every_fifth_picture_of_a_class_is_held_out(digits):
    training, held_out = read_labelled(digits / "val", None, 8)
    assert held_out.counts == pytest.approx((training.counts + held_out.counts) // 5)
    assert training.classes == held_out.classes


def test_a_damaged_picture_leaves_no_class_without_held_out_ones(run, digits, tmp_path):
    folder, out = tmp_path / "digits", tmp_path / "w.safetensors"
    for digit in "34":
        (folder / digit).mkdir(parents=True)
        for path in sorted((digits / "val" / digit).iterdir())[:6]:
            shutil.copy(path, folder / digit)
    held_out = min((folder / "3").iterdir(), key=lambda path: path_hash(f"3/{path.name}"))
    held_out.write_bytes(held_out.read_bytes()[:60])
    ran = run("train", folder, *SMALL, "--steps", 1, "--json", "--out", out)
    assert ran.code == 0, ran.stderr
    assert f"{held_out}: " in ran.stderr
    assert [sum(row) for row in ran.json["confusion"]] == [1, 1]
    others = shutil.copytree(folder, tmp_path / "others")
    for path in (others / "3").iterdir():
        path.write_bytes(b"damaged")
    ran = run("train", folder, "--val", others, *SMALL, "--steps", 1, "--out", out, "--overwrite")
    assert ran.code == 1
    assert f"{others / '3'}: no picture of this class can be read" in ran.stderr


def test_names_of_classes_are_shown_as_they_are(run, digits, tmp_path):
    for digit, name in (("3", "cats[old]"), ("4", "dogs")):
        shutil.copytree(digits / "val" / digit, tmp_path / "animals" / name)
    ran = run("train", tmp_path / "animals", *SMALL, "--steps", 1, "--out", tmp_path / "w.safetensors")
    assert ran.code == 0, ran.stderr
    assert ran.text.count("cats[old]") == 2


def test_an_interrupted_training_says_how_far_it_came(run, digits, tmp_path, monkeypatch):
    take = classification.classifier_step

    def interrupted(state, *rest):
        if state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return take(state, *rest)

    monkeypatch.setattr(classification, "classifier_step", interrupted)
    ran = run("train", digits / "val", *SMALL, "--steps", 10, "--json", "--out", tmp_path / "w.safetensors")
    assert ran.code == 130
    assert "stopped at step 2 of 10" in ran.stderr
    assert (ran.json["step"], ran.json["steps"]) == (2, 10)


def test_folders_of_trainings_and_of_held_out_pictures_are_no_classes(run, digits, tmp_path, monkeypatch):
    folder = tmp_path / "digits"
    for digit in "34":
        shutil.copytree(digits / "val" / digit, folder / digit)
        shutil.copytree(digits / "val" / digit, folder / "held out" / digit)
    monkeypatch.chdir(folder)
    command = ("train", ".", *SMALL, "--steps", 1, "--json")
    for options in ((), ("--overwrite",)):
        ran = run(*command, "--val", "held out", *options)
        assert ran.code == 0, ran.stderr
        assert ran.json["classes"] == ["3", "4"]
    again = run(*command)
    assert again.code == 2
    assert "--resume" not in again.stderr
    ran = run(*command, "--out", "3.safetensors", "--overwrite")
    assert ran.code == 2
    assert "holds pictures; give another --out" in ran.stderr


def test_bad_folders_and_options_are_refused(run, digits, tmp_path):
    out = ("--out", tmp_path / "w.safetensors")

    def refused(*arguments):
        ran = run("train", *arguments, *out)
        assert ran.code == 2, ran.stderr
        assert not list(tmp_path.glob("w*"))
        return ran.stderr

    assert "no classes" in refused(digits / "val" / "3", "--task", "classify")
    one = tmp_path / "one"
    shutil.copytree(digits / "val" / "3", one / "3")
    assert "only one class ('3')" in refused(one, "--task", "classify")
    assert "no such folder" in refused(tmp_path / "nowhere", "--task", "classify")
    assert "valid: none, sampling, weights" in refused(digits / "val", "--task", "classify", "--imbalance", "smote")
    assert "did you mean 'tilt'" in refused(digits / "val", "--task", "classify", "--augment", "tild")
    assert "--max-time" in refused(digits / "val", "--task", "classify", "--max-time", "1m")
    assert "--noise-level" in refused(digits / "val", "--task", "classify", "--noise-level", "0:10")
    assert "--loss: not for" in refused(digits / "val", "--task", "classify", "--loss", "l1")
    (one / "empty").mkdir()
    ran = run("train", one, "--task", "classify", *out)
    assert ran.code == 3
    assert "empty" in ran.stderr
    other = tmp_path / "other"
    shutil.copytree(digits / "val" / "3", other / "three")
    shutil.copytree(digits / "val" / "4", other / "4")
    assert "its classes are not those" in refused(digits / "val", "--val", other, "--task", "classify")
    (tmp_path / "file").touch()
    ran = run("train", digits / "val", "--task", "classify", "--out", tmp_path / "file" / "w.safetensors")
    assert ran.code == 2
    assert "this folder cannot be made" in ran.stderr
