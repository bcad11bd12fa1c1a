"""The study: arms, runs, resuming, and what is concluded from them."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from deconv_cli.errors import DiskFullError
from deconv_cli.network.activations import ACTIVATIONS
from deconv_cli.study import run as run_module
from deconv_cli.study import study as study_module
from deconv_cli.study.arms import Settings
from deconv_cli.study.data import LabelledData
from deconv_cli.study.measures import checkerboard_energy
from deconv_cli.study.plots import STYLES, plot_curves, plot_gain, plot_gradients
from deconv_cli.study.report import health_table, main_table, write_report
from deconv_cli.study.statistics import compare, estimate, is_tie
from deconv_cli.study.summary import baseline, gain, load_summary, steps_to, weakest_ratio
from deconv_cli.study.verdicts import verdicts
from deconv_cli.training.labelled import LabelledPictures

TINY = ("--width", 4, "--depth", 6, "--steps", 12, "--sweep-steps", 3, "--patch", 16, "--batch", 2, "--seeds", 2)


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
    layers = {"head", "encoder.0", "encoder.1", "decoder.0", "decoder.1", "tail"}
    assert set(first["health"][0]["gradient"]) == layers
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


def test_a_study_among_its_own_pictures_is_none_of_them(run, pictures, tmp_path, monkeypatch):
    folder = shutil.copytree(pictures, tmp_path / "mine")
    monkeypatch.chdir(folder)
    options = (*TINY, "--activations", "relu", "--rates", "1e-3", "--steps", 4, "--seeds", 1, "--jobs", 1)
    assert run("study", ".", *options).code == 0
    assert list((folder / "mine-study").glob("*.png"))
    assert run("study", folder, *options, "--out", tmp_path / "again").code == 0
    first, again = (json.loads((out / "study.json").read_text()) for out in (folder / "mine-study", tmp_path / "again"))
    assert first["crops"] == again["crops"]
    before = sorted(folder.iterdir())
    for inputs, out in ((".", "."), (tmp_path / "again", folder)):
        ran = run("study", inputs, *options, "--out", out)
        assert ran.code == 2
        assert f"error: {out}: the results would lie among pictures; give another --out" in ran.stderr
    assert sorted(folder.iterdir()) == before


def test_processes_give_what_one_gives(run, pictures, tmp_path):
    options = (*TINY, "--activations", "tanh", "--rates", "1e-3", "--steps", 4, "--seeds", 1)
    for jobs in (1, 2):
        assert run("study", pictures, *options, "--jobs", jobs, "--out", tmp_path / str(jobs)).code == 0
    one, two = (json.loads((tmp_path / jobs / "results.json").read_text())["runs"][-1] for jobs in "12")
    assert one["score"] == pytest.approx(two["score"], abs=1e-3)


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_say_as_much_as_one_is_asked_to(run, pictures, tmp_path, jobs):
    options = (*TINY, "--activations", "tanh", "--rates", "1e-3", "--steps", 4, "--seeds", 1, "--jobs", jobs)
    said = "-sweep-0.001-1000: 3 steps of 851 parameters in "
    assert said in run("study", pictures, *options, "--out", tmp_path / "v", "--verbose").stderr
    assert "parameters in" not in run("study", pictures, *options, "--out", tmp_path / "n").stderr
    assert run("study", pictures, *options, "--out", tmp_path / "q", "--quiet").stderr == ""


def test_what_libraries_warn_of_in_a_process_is_for_the_log(monkeypatch, capsys):
    package = logging.getLogger("deconv_cli")
    for module, name in ((study_module, "load_data"), (torch, "set_num_threads"), (signal, "signal")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(package, "handlers", package.handlers)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(study_module, "carry_out", lambda *_: warnings.warn("overflow", RuntimeWarning, stacklevel=1))
    level = package.level
    study_module._Worker.start(None, None, SimpleNamespace(is_set=lambda: False), logging.DEBUG)
    try:
        _, ((severity, text),) = study_module._Worker.carry_out(None)
    finally:
        package.setLevel(level)
    assert severity == logging.DEBUG
    assert text.endswith("RuntimeWarning: overflow")
    assert capsys.readouterr().err == ""


def test_a_diverged_arm_is_a_result(run, pictures, tmp_path):
    out = tmp_path / "study"
    options = (*TINY, "--activations", "none", "--optimizer", "sgd", "--rates", "1e30", "--steps", 40, "--jobs", 1)
    ran = run("study", pictures, *options, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "diverged" in ran.stderr
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert all(entry["diverged"] for entry in runs if not entry["sweep"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_stopping_leaves_what_is_finished(pictures, tmp_path, jobs):
    settings = Settings(
        ("relu",), depths=(4,), width=4, steps=4, sweep_steps=2, patch=16, batch=2, rates=(1e-3,), seeds=12
    )

    def stop():
        return len(list((tmp_path / "runs").iterdir())) >= 2

    assert not study_module.study([pictures], tmp_path, settings, jobs=jobs, stop=stop)
    assert 2 <= len(list((tmp_path / "runs").iterdir())) < 13
    assert study_module.study([pictures], tmp_path, settings)


def test_a_run_has_one_thread_whatever_the_jobs(pictures, tmp_path, monkeypatch):
    threads = []

    def carry_out(run, *_):
        threads.append(torch.get_num_threads())
        return {"score": run.rate, "rate": run.rate, "diverged": False}

    monkeypatch.setattr(study_module, "carry_out", carry_out)
    settings = Settings(("relu",), depths=(4,), width=4, steps=4, sweep_steps=2, patch=16, batch=2, rates=(1e-3,))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        study_module.study([pictures], tmp_path, settings)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_an_error_amid_a_study_does_not_wait_for_the_runs_that_are_left(pictures, tmp_path, monkeypatch):
    futures = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, jobs, *_):
            super().__init__(jobs)

        def submit(self, *what):
            futures.append(super().submit(*what))
            return futures[-1]

    def fill(*_):
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(study_module, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(study_module._Worker, "carry_out", lambda run: time.sleep(0.05) or ({"score": run.rate}, []))
    rates = tuple(number / 1000 for number in range(1, 41))
    settings = Settings(("relu",), depths=(4,), width=4, steps=4, sweep_steps=2, patch=16, batch=2, rates=rates)
    with pytest.raises(DiskFullError):
        study_module.study([pictures], tmp_path, settings, jobs=2, report=fill)
    assert sum(future.cancelled() for future in futures) > 20


def test_a_study_takes_the_processors_of_its_container_not_of_the_machine(run, pictures, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("deconv_cli.network.container.thread_limit", lambda: 3)
    monkeypatch.setattr(study_module, "study", lambda *_, jobs, **__: given.append(jobs))
    run("study", pictures, "--out", tmp_path / "study")
    assert given == [3]


def test_what_is_given_twice_is_done_once(run, pictures, tmp_path):
    out = tmp_path / "study"
    twice = ("--activations", "relu,relu", "--rates", "1e-3,1e-3", "--skips", "on,on")
    ran = run("study", pictures, *TINY, *twice, "--seeds", 1, "--jobs", 1, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "stopped" not in ran.stderr
    assert len(json.loads((out / "results.json").read_text())["runs"]) == 2
    assert (out / "report.md").exists()


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
        (("--skips", "on,off", "--depth", "4,8"), "no skips to leave out: cross them from --depth 6 on"),
        (("--architecture", "pyramid", "--depth", 1, "--skips", "on,off"), "cross them from --depth 2 on"),
        (("--architecture", "pyramid", "--depth", 1, "--upsampling", "deconv,resize"), "neither skips nor upsampling"),
        (("--optimizer", "adam"), "valid: adamw, muon, sgd"),
        (("--batch", 0), "0 is not in the range"),
        (("--patch", 0), "0 is not in the range"),
        (("--rates", "fast"), "--rates"),
        (("--rates", "1e-3,0"), "the learning rates must be positive"),
        (("--rates", "1e-3,nan"), "the learning rates must be positive"),
        (("--rates", "inf"), "the learning rates must be positive"),
        (("--quick", "--full"), "exclude each other"),
    ],
)
def test_bad_options_are_refused_before_any_work(run, pictures, tmp_path, arguments, message):
    ran = run("study", pictures, *arguments, "--out", tmp_path / "study")
    assert ran.code == 2
    assert message in ran.stderr
    assert not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A small finished study: two activations, with and without skips."""
    out = tmp_path_factory.mktemp("finished")
    settings = Settings(
        ("relu", "tanh", "sigmoid", "leaky_relu"), skips=(True, False), depths=(6,), width=4, steps=14, sweep_steps=2,
        patch=16, batch=2, seeds=2, rates=(1e-3, 1e-2),
    )  # fmt: skip
    assert study_module.study([pictures], out, settings, validation=pictures)
    return out


def test_the_report_is_made_from_results_alone(run, finished, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "results.json").write_bytes((finished / "results.json").read_bytes())
    ran = run("study", "--report", copy)
    assert ran.code == 0, ran.stderr
    assert "leaky_relu" in ran.text
    names = {"gain", "curves-steps", "curves-seconds", "gradients", "ratios", "activations", "rates", "sample"}
    assert {path.stem for path in copy.glob("*.png")} == names
    for path in copy.glob("*.png"):
        with Image.open(path) as plot:
            assert min(plot.size) > 250
            assert len(np.unique(np.asarray(plot.convert("L")))) > 10
    report, page = (copy / "report.md").read_text(), (copy / "report.html").read_text()
    for picture in names:
        assert f"({picture}.png)" in report
    assert page.count("data:image/png;base64,") == len(names)
    assert "://" not in page
    assert page.count("<tr>") == 2 * (8 + 1)
    lines = (copy / "curves.csv").read_text().splitlines()
    curve = json.loads((copy / "results.json").read_text())["runs"][-1]["curve"]
    assert len(lines) == 1 + 8 * 2 * len(curve)
    before = report
    told = run("study", "--report", copy, "-q", "--json").json
    assert told["report"] == str(copy / "report.md")
    assert {(arm["activation"], arm["skips"]) for arm in told["arms"]} == {
        (activation, skips) for activation in ("relu", "tanh", "sigmoid", "leaky_relu") for skips in (True, False)
    }
    assert all(f"{arm['gain']['mean']:+.2f}" in ran.text for arm in told["arms"])
    assert all(verdict["claim"] in ran.text for verdict in told["verdicts"])
    assert (copy / "report.md").read_text() == before


@pytest.fixture
def resumed(run, finished, pictures, tmp_path, monkeypatch):
    """Go on with a copy of the finished study, after something was done to its folder: how it ended, and the runs."""
    carried = []

    def carry_out(entry, *_):
        carried.append(entry.name)
        return json.loads((finished / "runs" / f"{entry.name}.json").read_text())

    monkeypatch.setattr(study_module, "carry_out", carry_out)
    monkeypatch.setattr("deconv_cli.study.report.plots", lambda _: {})  # They take their time.
    out = shutil.copytree(finished, tmp_path / "study")

    def resume(change, folder=pictures):
        change(out)
        settings = ("--activations", "relu,tanh,sigmoid,leaky_relu", "--skips", "on,off", "--rates", "1e-3,1e-2")
        tiny = (*TINY, "--steps", 14, "--sweep-steps", 2, "--val", folder, "--jobs", 1, "--out", out)
        return run("study", folder, *settings, *tiny), carried

    return resume


def test_damaged_results_of_runs_are_made_anew(resumed, finished):
    names = sorted(path.name for path in (finished / "runs").iterdir())[:2]

    def damage(out):
        (out / "runs" / names[0]).write_bytes(b"")
        (out / "runs" / names[1]).write_bytes((finished / "runs" / names[1]).read_bytes()[:100])

    ran, carried = resumed(damage)
    assert ran.code == 0, ran.stderr
    assert sorted(f"{name}.json" for name in carried) == names
    assert all(f"{name}: damaged" in ran.stderr for name in names)


@pytest.mark.parametrize("left", [0, 1000, None])
def test_damaged_crops_are_cut_anew_if_they_come_out_the_same(resumed, finished, pictures, tmp_path, left):
    crops = (finished / "crops.npz").read_bytes()

    def damage(out):
        (out / "crops.npz").write_bytes(bytes(100) if left is None else crops[:left])

    ran, carried = resumed(damage)
    assert ran.code == 0, ran.stderr
    assert not carried
    assert "crops.npz: cannot be read, or is damaged" in ran.stderr
    assert (tmp_path / "study" / "crops.npz").stat().st_size == len(crops)
    other = shutil.copytree(pictures, tmp_path / "elsewhere" / pictures.name)
    Image.new("RGB", (128, 128)).save(other / "coffee.png")
    ran, _ = resumed(damage, other)
    assert ran.code == 1
    assert "crops.npz: damaged, and the folders hold other pictures by now; give another --out" in ran.stderr


def doctored(finished, tmp_path, change):
    """The results with their numbers changed: the sentences must follow."""
    content = json.loads((finished / "results.json").read_text())
    for entry in content["runs"]:
        change(entry)
    (tmp_path / "results.json").write_text(json.dumps(content))
    return load_summary(tmp_path / "results.json")


def test_verdicts_follow_the_numbers(finished, tmp_path):
    gains = {"sigmoid": 0.0, "tanh": 2.0, "relu": 3.0, "leaky_relu": 3.0}

    def change(entry):
        if entry["sweep"]:
            return
        name, skips = entry["arm"]["activation"], entry["arm"]["skips"]
        for level in entry["levels"]:
            level["gain"] = gains[name] + (1 if skips else 0) + 0.01 * entry["seed"]
            if name == "leaky_relu":
                level["gain"] += 0.1 * (-1) ** entry["seed"]
        entry["off"] = {"relu": 0.2 if skips else 0.01, "leaky_relu": 0.0}.get(name)
        for moment in entry["health"]:
            moment["first_over_last"] = 1e-7 if name == "sigmoid" and not skips else 0.5

    summary = doctored(finished, tmp_path, change)
    told = {verdict.claim: verdict for verdict in verdicts(summary)}
    (vanishes,) = [verdict for claim, verdict in told.items() if "vanish" in claim]
    assert vanishes.conclusion == "holds in 1 of 2 settings"
    assert "1.0e-07" in vanishes.evidence[1]
    assert told["tanh does better than the sigmoid."].conclusion == "better in all 2 comparisons"
    (dies,) = [verdict for claim, verdict in told.items() if "dies" in claim]
    assert dies.conclusion == "holds in 1 of 2 settings"
    (mends,) = [verdict for claim, verdict in told.items() if "mends" in claim]
    assert mends.conclusion == "a tie in all 2 comparisons"
    (skips,) = [verdict for claim, verdict in told.items() if "skips" in claim]
    assert skips.conclusion == "with skips does better in all 4 comparisons"
    assert "sigmoid: with skips against without skips +1.00 ± 0.00 dB" in " ".join(skips.evidence)
    assert told["Which activation does best?"].evidence[0].startswith("with skips: relu, gain 4.00")


def gains_of(finished, tmp_path, gains):
    """The results with other gains, by activation and whether there are skips: one for each of the two seeds."""

    def change(entry):
        if not entry["sweep"]:
            for level in entry["levels"]:
                level["gain"] = gains[entry["arm"]["activation"]][entry["arm"]["skips"]][entry["seed"]]

    return verdicts(doctored(finished, tmp_path, change))[0]


def test_a_winner_is_named_only_where_it_is_told_from_all_others(finished, tmp_path):
    low, high, spread, wild = (1.0, 1.01), (3.0, 3.01), (2.0, 4.1), (-0.5, 2.0)
    behind = {"sigmoid": (low, low), "tanh": (low, low)}

    def told(relu, leaky_relu):
        return gains_of(finished, tmp_path, {**behind, "relu": relu, "leaky_relu": leaky_relu})

    assert told((low, low), (high, high)).conclusion == "leaky_relu wherever anything is learned"
    assert told((low, high), (high, low)).conclusion == "it depends on the setting"
    tied = told((high, high), (spread, spread))
    assert tied.conclusion.startswith("cannot be told: leaky_relu is not told from ")
    assert "relu" in tied.conclusion.removeprefix("cannot be told: leaky_relu")
    half = told((high, low), (spread, high))
    assert half.conclusion == "leaky_relu in 1 of 2 settings, cannot be told in the others"
    unlearned = dict.fromkeys(("sigmoid", "tanh", "relu"), ((0.0, 0.01),) * 2) | {"leaky_relu": (wild, wild)}
    chance = gains_of(finished, tmp_path, unlearned)
    assert chance.conclusion == "cannot be told"
    assert "leaky_relu gains most, 0.75 ± 15.88 dB, but that anything was learned cannot be told" in chance.evidence[0]


def test_units_die_only_where_the_interval_says_so(finished, tmp_path):
    def change(entry):
        if not entry["sweep"]:
            entry["off"] = 0.2 + 0.01 * entry["seed"] if entry["arm"]["skips"] else 0.25 * entry["seed"]

    told = {verdict.claim: verdict.conclusion for verdict in verdicts(doctored(finished, tmp_path, change))}
    (dies,) = [conclusion for claim, conclusion in told.items() if "dies" in claim]
    assert dies == "holds in 1 of 2 settings, cannot be told in 1"


def test_arms_that_diverged_are_told_and_do_not_break_the_report(finished, tmp_path):
    def change(entry):
        if entry["arm"]["activation"] == "tanh" and not entry["sweep"]:
            kept = {name: entry[name] for name in ("arm", "rate", "seed", "sweep", "steps", "parameters", "seconds")}
            entry.clear()
            entry.update(kept, diverged=True)

    summary = doctored(finished, tmp_path, change)
    assert [row[3] for row in main_table(summary).rows if "tanh" in row[1]] == ["diverged"] * 2
    write_report(tmp_path)
    assert "diverged" in (tmp_path / "report.md").read_text()


def test_the_legend_of_a_study_that_diverged_names_no_target(finished, tmp_path, monkeypatch):
    def change(entry):
        entry["diverged"] = entry["diverged"] or not entry["sweep"]

    doctored(finished, tmp_path, change)
    monkeypatch.setattr("deconv_cli.study.report.plots", lambda _: {})
    write_report(tmp_path)
    assert "at the middle level: none, since no run came to its end." in (tmp_path / "report.md").read_text()


def test_an_arm_of_which_some_runs_diverged_says_so_wherever_it_is_judged(finished, tmp_path):
    """Its means are those of the luckier seeds."""

    def change(entry):
        entry["diverged"] = entry["diverged"] or (
            entry["arm"]["activation"] == "tanh" and not entry["sweep"] and entry["seed"] == 1
        )

    summary = doctored(finished, tmp_path, change)
    assert all("(1 of 2 diverged)" in row[3] for row in main_table(summary).rows if "tanh" in row[1])
    told = {verdict.claim: " ".join(verdict.evidence) for verdict in verdicts(summary)}
    for claim in ("Which activation does best?", "tanh does better than the sigmoid."):
        assert "tanh" in told[claim]
        assert "1 of 2 diverged" in told[claim]
    (skips,) = [text for claim, text in told.items() if "skips" in claim]
    assert "1 of 2 diverged" in skips


def kept(finished, tmp_path, keep):
    """The results of some of the runs, as a study that was stopped has them."""
    content = json.loads((finished / "results.json").read_text())
    content["runs"] = [entry for entry in content["runs"] if entry["sweep"] or keep(entry)]
    for entry in content["runs"]:
        if entry["sweep"]:
            entry["score"] = 20 + entry["rate"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    return load_summary(tmp_path / "results.json")


def test_arms_that_were_not_run_are_told_from_those_that_diverged(run, finished, tmp_path, monkeypatch):
    summary = kept(
        finished, tmp_path, lambda run: run["arm"]["activation"] == "relu" and run["arm"]["skips"] and not run["seed"]
    )
    rows = {(row[0], row[1].strip("*")): row for row in main_table(summary).rows}
    assert rows["with skips", "tanh"][2:4] == ["0.01", "not run"], "with the rate that was chosen"
    assert "not run" in {row[4] for row in health_table(summary).rows}
    best = verdicts(summary)[0].evidence
    assert best[0].endswith("; not run: tanh, sigmoid, leaky_relu.")
    assert best[1] == "without skips: not run."
    for plot in (plot_gain(summary), plot_gradients(summary)):
        texts = [text.get_text().strip() for axes in plot.axes for text in axes.texts]
        assert texts.count("not run") == 7
        assert "diverged" not in texts
    monkeypatch.setattr("deconv_cli.study.report.plots", lambda _: {})  # They take their time.
    ran = run("study", "--report", tmp_path)
    assert ran.code == 0, ran.stderr
    told = run("study", "--report", tmp_path, "--json").json
    assert told["arms"][0]["gain"]["low"] is None
    assert [arm["gain"] for arm in told["arms"] if not arm["runs"]] == [None] * 7
    assert "not run" in ran.text
    assert "with one seed nothing can be told" in (tmp_path / "report.md").read_text()
    assert "diverged" not in ran.text


def test_one_seed_tells_no_difference_and_is_no_tie(finished, tmp_path):
    summary = kept(finished, tmp_path, lambda run: run["seed"] == 0)
    told = verdicts(summary)
    assert [verdict.conclusion for verdict in told if verdict.claim.startswith(("tanh", "Leaky"))] == [
        "too few seeds to tell in all 2 comparisons"
    ] * 2
    sentences = " ".join(sentence for verdict in told for sentence in verdict.evidence)
    assert "dB (one seed: cannot be told)" in sentences
    assert "tie" not in sentences


def test_a_folder_without_results_is_refused(run, tmp_path, pictures):
    ran = run("study", "--report", tmp_path)
    assert ran.code == 1
    assert "results.json" in ran.stderr
    for beside in ((pictures,), ("--quick",), ("--out", tmp_path / "out"), ("--seeds", 3)):
        ran = run("study", *beside, "--report", tmp_path)
        assert ran.code == 2
        assert f"{'FOLDER' if beside == (pictures,) else beside[0]} does not go with --report" in ran.stderr
    assert run("study").code == 2


def test_intervals_are_those_of_students_t():
    values = [1.0, 2.0, 4.0, 4.5]
    from scipy import stats

    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    reached = estimate(values)
    assert (reached.low, reached.high) == pytest.approx((low, high))
    assert is_tie(compare({0: 1.0, 1: 2.0}, {0: 1.1, 1: 1.8}))
    assert not is_tie(compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.9, 1: 1.91, 2: 2.9, 9: 50.0}))
    assert estimate([]) is None
    assert is_tie(estimate([3.0]))


def test_steps_to_a_score_are_between_the_points_of_the_curve():
    run = {"curve": [{"step": 0, "score": 20.0}, {"step": 10, "score": 22.0}, {"step": 20, "score": 21.0}]}
    assert steps_to(21.0)(run) == 5
    assert steps_to(19.0)(run) == 0
    assert steps_to(23.0)(run) is None


def test_the_weakest_layer_shows_what_skips_starve():
    health = [{"gradient": {"head": 0.1, "encoder.0": 1e-9, "tail": 1.0}}] * 3
    assert weakest_ratio({"health": health}) == pytest.approx(1e-9)
    assert weakest_ratio({"health": [{"gradient": {"head": None, "tail": 1.0}}]}) is None


def test_checkerboard_energy_of_what_nearly_diverged_is_a_number():
    error = np.random.default_rng(0).standard_normal((1, 16, 16, 3), np.float32)
    assert checkerboard_energy(error * np.float32(1e30)) == pytest.approx(checkerboard_energy(error), rel=1e-5)


def test_checkerboard_energy_finds_what_a_deconvolution_leaves():
    """A stride-2 transposed convolution with unequal phases ripples, one with equal phases does not."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    kernel = torch.tensor([[1.0, 0.5], [0.5, 0.2]]).expand(3, 1, 2, 2)
    uneven, even = (
        torch.nn.functional.conv_transpose2d(x, k, stride=2, groups=3).permute(0, 2, 3, 1).numpy()
        for k in (kernel, torch.ones(3, 1, 2, 2))
    )
    assert checkerboard_energy(uneven) > 3 * checkerboard_energy(even)


def test_a_study_of_classification(run, tmp_path):
    folder = tmp_path / "classes"
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 150)):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray((low + rng.integers(0, 100, (8, 8, 3))).astype(np.uint8)).save(
                folder / name / f"{number}.png"
            )
    out = tmp_path / "study"
    options = ("--width", 4, "--depth", 4, "--patch", 8, "--batch", 8, "--steps", 20, "--sweep-steps", 5, "--seeds", 2)
    ran = run("study", folder, "--task", "classify", "--activations", "relu,tanh", *options, "--jobs", 1, "--out", out)
    assert ran.code == 0, ran.stderr
    runs = [entry for entry in json.loads((out / "results.json").read_text())["runs"] if not entry["sweep"]]
    assert all(0 <= entry["score"] <= 100 and entry["baseline"] == 50 for entry in runs)
    assert max(entry["score"] for entry in runs) > 70
    assert "accuracy / %" in (out / "report.md").read_text()
    assert run("study", folder, "--task", "classify,denoise", "--out", tmp_path / "o").code == 2


def test_the_units_of_a_classifier_are_observed_on_all_classes(monkeypatch):
    """Held-out pictures lie class by class."""
    labels = np.repeat(np.arange(3), 5)
    pixels = np.broadcast_to(labels[:, None, None, None], (15, 8, 8, 3)).astype(np.uint8)
    pictures = LabelledPictures(pixels, labels, ("a", "b", "c"))
    settings = Settings(("relu",), ("classify",), depths=(4,), width=4, patch=8, batch=2)
    config = settings.config(settings.arms[0], 1e-3, seed=0, steps=2)
    training = run_module.ClassifierTraining(config, LabelledData(pictures, pictures))
    seen = []
    monkeypatch.setattr(run_module, "LOOKED_AT", 6)
    monkeypatch.setattr(run_module, "predict", lambda network, shown, device: seen.append(shown))
    training.look()
    assert len(seen[0]) <= 6
    assert set(seen[0].ravel()) == {0, 1, 2}


def test_a_classifier_that_names_the_commonest_class_gains_exactly_nothing(monkeypatch):
    """Of 7 pictures 3 are a score that no five digits hold."""
    pictures = LabelledPictures(np.zeros((7, 8, 8, 3), np.uint8), np.array([0, 0, 0, 1, 1, 2, 2]), ("a", "b", "c"))
    settings = Settings(("relu",), ("classify",), depths=(4,), width=4, patch=8, batch=2)
    config = settings.config(settings.arms[0], 1e-3, seed=0, steps=2)
    training = run_module.ClassifierTraining(config, LabelledData(pictures, pictures))
    named = np.eye(3, dtype=np.float32)[np.zeros(7, int)]
    monkeypatch.setattr(run_module, "predict", lambda *_: named)
    assert gain(training.measure(thoroughly=True)) == 0


def test_the_end_of_every_curve_is_drawn(finished, tmp_path):
    """An arm that made things much worse is in the legend, and must be seen."""

    def change(entry):
        if not entry["sweep"] and entry["arm"]["activation"] == "tanh":
            for point in entry["curve"]:
                point["score"] = 5.0

    for axes in plot_curves(doctored(finished, tmp_path, change), seconds=False).axes:
        assert axes.get_ylim()[0] < 5


def test_layers_have_whole_numbers(finished):
    for axes in plot_gradients(load_summary(finished / "results.json")).axes[:-1]:
        assert [tick % 1 for tick in axes.get_yticks()] == [0] * 6


def test_every_activation_has_a_style_of_its_own():
    assert set(STYLES) == set(ACTIVATIONS)
    assert len(set(STYLES.values())) == len(STYLES)


def test_nothing_is_measured_on_blank_pages(run, pictures, tmp_path):
    folder, held_out, out = (tmp_path / name for name in ("images", "val", "study"))
    shutil.copytree(pictures, folder)
    held_out.mkdir()
    Image.new("RGB", (1000, 1000), "white").save(folder / "white.png")
    Image.new("RGB", (64, 64), "white").save(held_out / "white.png")
    command = ("study", folder, *TINY, "--steps", 2, "--seeds", 1, "--rates", "1e-3", "--activations", "relu")
    command = (*command, "--task", "decompress,sr", "--val", held_out, "--jobs", 1)
    ran = run(*command, "--out", tmp_path / "blank")
    assert ran.code == 1
    assert "of one colour" in ran.stderr
    shutil.copy(pictures / "coffee.png", held_out)
    ran = run(*command, "--out", out)
    assert ran.code == 0, ran.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["crops"]["validation"] == 1
    assert all(entry["score"] < 60 for entry in results["runs"])


def test_tasks_and_upsampling_can_be_crossed(run, pictures, tmp_path):
    out = tmp_path / "study"
    crossed = ("--architecture", "pyramid", "--depth", 2, "--task", "denoise,sr", "--upsampling", "deconv,shuffle")
    tiny = (
        "--width",
        4,
        "--steps",
        4,
        "--sweep-steps",
        1,
        "--patch",
        16,
        "--batch",
        2,
        "--seeds",
        1,
        "--rates",
        "1e-3",
    )
    options = ("--activations", "relu", "--optimizer", "muon", "--val", pictures, "--jobs", 1, "--out", out)
    ran = run("study", pictures, *crossed, *tiny, *options)
    assert ran.code == 0, ran.stderr
    runs = [entry for entry in json.loads((out / "results.json").read_text())["runs"] if not entry["sweep"]]
    assert len(runs) == 2 * 2
    assert {len(entry["levels"]) for entry in runs if entry["arm"]["task"] == "sr"} == {1}
    assert "**What upsampling does" in (out / "report.md").read_text()
    figure = plot_curves(load_summary(out / "results.json"), seconds=False)
    for axes, task in zip(figure.axes, ("denoise", "denoise", "sr", "sr"), strict=True):
        nothing = {line.get_label(): line for line in axes.lines}["doing nothing"].get_ydata()[0]
        assert nothing == pytest.approx(baseline(next(run for run in runs if run["arm"]["task"] == task)))
        assert axes.get_ylabel() == ("PSNR / dB at level 2" if task == "sr" else "PSNR / dB at level 25")
        assert axes.get_ylim()[0] < nothing < axes.get_ylim()[1]
