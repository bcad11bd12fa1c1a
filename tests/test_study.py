"""The study: arms, runs, resuming, and what is concluded from them."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from skimage import data

from deconv_cli.study import study as study_module
from deconv_cli.study.arms import Settings

TINY = ("--width", 4, "--depth", 4, "--steps", 12, "--sweep-steps", 3, "--patch", 16, "--batch", 2, "--seeds", 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in {
        "astronaut": data.astronaut()[:128, 150:300],
        "coffee": data.coffee()[100:228, 200:350],
        "camera": data.camera()[150:300, 150:300],
    }.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_a_study_is_carried_out_resumed_and_extended(run, pictures, tmp_path, monkeypatch):
    out = tmp_path / "study"
    options = (*TINY, "--activations", "relu,sigmoid", "--rates", "1e-3,1e-2", "--jobs", 1, "--out", out)
    ran = run("study", pictures, *options, "--skips", "on,off")
    assert ran.code == 0, ran.stderr
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert len(runs) == 4 * (2 + 2)
    (first,) = [
        entry
        for entry in runs
        if not entry["sweep"] and entry["seed"] == 0 and entry["arm"]["activation"] == "relu" and entry["arm"]["skips"]
    ]
    assert first["score"] > 10
    assert [entry["level"] for entry in first["levels"]] == [15, 25, 50]
    assert first["curve"][-1]["step"] == 12
    assert set(first["health"][0]["gradient"]) == {"head", "encoder.0", "decoder.0", "tail"}
    assert set(first["histograms"]) == {"start", "middle", "end"}

    # Finished runs are kept: with one taken away, only that one is done again, and comes out the same.
    lost = sorted((out / "runs").glob("*-seed-*-0.json"))[0]
    before = json.loads(lost.read_text())
    lost.unlink()
    carried = []
    carry_out = study_module.carry_out
    monkeypatch.setattr(study_module, "carry_out", lambda run, *rest: carried.append(run) or carry_out(run, *rest))
    assert run("study", pictures, *options, "--skips", "on,off").code == 0
    assert [entry.name for entry in carried] == [lost.stem]
    after = json.loads(lost.read_text())
    assert after["levels"] == before["levels"]
    assert after["health"] == before["health"]

    carried.clear()
    assert run("study", pictures, *options, "--skips", "on,off", "--seeds", 3).code == 0
    assert {entry.seed for entry in carried} == {2}
    ran = run("study", pictures, *options, "--steps", 13)
    assert ran.code == 2
    assert "steps" in ran.stderr


def test_processes_give_what_one_gives(run, pictures, tmp_path):
    options = (*TINY, "--activations", "tanh", "--rates", "1e-3", "--steps", 3, "--seeds", 1)
    for jobs in (1, 2):
        assert run("study", pictures, *options, "--jobs", jobs, "--out", tmp_path / str(jobs)).code == 0
    one, two = (json.loads((tmp_path / jobs / "results.json").read_text())["runs"][-1] for jobs in "12")
    assert one["score"] == pytest.approx(two["score"], abs=1e-3)


def test_a_diverged_arm_is_a_result(run, pictures, tmp_path):
    out = tmp_path / "study"
    options = (*TINY, "--activations", "none", "--optimizer", "sgd", "--rates", "1e30", "--steps", 40, "--jobs", 1)
    ran = run("study", pictures, *options, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "diverged" in ran.stderr
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert all(entry["diverged"] for entry in runs if not entry["sweep"])


def test_stopping_leaves_what_is_finished(pictures, tmp_path):
    settings = Settings(("relu",), depths=(4,), width=4, steps=4, sweep_steps=2, patch=16, batch=2, rates=(1e-3,))
    calls = iter(range(1000))
    complete = study_module.study([pictures], tmp_path, settings, stop=lambda: next(calls) == 8)
    assert not complete
    finished = [path.stem for path in (tmp_path / "runs").iterdir()]
    assert 1 < len(finished) < 6
    assert study_module.study([pictures], tmp_path, settings)


def test_arms_see_equal_batches_and_have_names_of_their_own():
    settings = Settings(
        ("relu", "tanh"), initialisations=("matched", "default"), skips=(True, False), optimizers=("adamw", "muon")
    )
    assert len({arm.name for arm in settings.arms}) == 16
    configs = [settings.config(arm, 1e-3, seed=3, steps=10) for arm in settings.arms]
    assert {(config.seed, config.batch, config.patch, config.level_range) for config in configs} == {
        (3, 8, 48, (5.0, 50.0))
    }


def test_the_rate_that_validates_best_is_chosen():
    sweep = [{"rate": 0.1, "score": None}, {"rate": 0.01, "score": 20.0}, {"rate": 0.001, "score": 21.0}]
    assert study_module.choose_rate(sweep) == 0.001
    assert study_module.choose_rate(sweep[:1]) == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--activations", "rellu"), "did you mean 'relu'"),
        (("--task", "denoize"), "did you mean 'denoise'"),
        (("--initialisation", "random"), "valid: default, matched"),
        (("--skips", "maybe"), "--skips takes on, off"),
        (("--depth", "5"), "even number"),
        (("--upsampling", "deconv,resize"), "--architecture pyramid"),
        (("--optimizer", "adam"), "valid: adamw, muon, sgd"),
        (("--rates", "fast"), "--rates"),
        (("--quick", "--full"), "exclude each other"),
    ],
)
def test_bad_options_are_refused_before_any_work(run, pictures, tmp_path, arguments, message):
    ran = run("study", pictures, *arguments, "--out", tmp_path / "study")
    assert ran.code == 2
    assert message in ran.stderr
    assert not (tmp_path / "study").exists()
