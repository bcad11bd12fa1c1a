"""``deconv study``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.reporting import cells_table
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.errors import UsageError

if TYPE_CHECKING:
    from deconv_cli.cli.streams import Streams
    from deconv_cli.study.study import Progress

QUICK = {"steps": 1000, "sweep_steps": 250}
FULL = {
    "steps": 4000,
    "sweep_steps": 1000,
    "skips": (True, False),
    "initialisations": ("matched", "default"),
}
"""What the presets set; options win over them."""


def study(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", show_default=False, help="Clean pictures, found recursively."),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="relu, leaky_relu, leaky_relu_0.2, prelu, tanh, sigmoid, elu, gelu, silu, mish or none."
            " [sigmoid,tanh,relu,leaky_relu]",
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME,...", help="denoise, decompress or sr; or classify, alone. [denoise]"),
    ] = None,
    initialisations: Annotated[
        str | None,
        typer.Option(
            "--initialisation",
            metavar="matched,default",
            help="Matched to the activation, or PyTorch's default. [matched]",
        ),
    ] = None,
    skips: Annotated[str | None, typer.Option(metavar="on,off", help="With and without skips. [on]")] = None,
    depths: Annotated[
        str | None,
        typer.Option("--depth", metavar="N,...", help="Layers of a rednet [12], or levels of a pyramid [3]."),
    ] = None,
    upsamplings: Annotated[
        str | None,
        typer.Option("--upsampling", metavar="deconv,resize,shuffle", help="How a pyramid goes up. [deconv]"),
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option("--optimizer", metavar="adamw,muon,sgd", help="How to descend. [adamw]")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="rednet|pyramid", help="The classic stack, or the product's pyramid. [rednet]"),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels at full resolution. [16]")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs an arm. [5]")] = None,
    rates: Annotated[
        str | None,
        typer.Option(metavar="X,...", help="Learning rates to choose from, for every arm. [four by optimiser]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a reported run. [2000]")] = None,
    sweep_steps: Annotated[int | None, typer.Option(help="Steps of a run that chooses the rate. [500]")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches a step. [8; classify: 16]")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch in pixels. [48; classify: 32]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="1000 steps: ten to twenty minutes on two cores.")] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="4000 steps, skips and initialisation crossed: some hours."),
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to measure on. [a tenth of the pictures, 1 to 16]"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, one thread each. [one for every core]")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the report of the study in FOLDER anew, from its results, and do nothing else.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the study lives. [FOLDER-study]", show_default=False)
    ] = None,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Study what activation functions do to the network: quality, gradients, generalisation, with intervals.

    deconv study ./images --quick

    deconv study ./images --activations relu,tanh --skips on,off --initialisation matched,default

    An arm is one combination of what is given. For every arm a learning rate is chosen on the held-out pictures; then
    it is trained with every seed, all arms seeing the same batches. Ctrl-C stops; the same command goes on.

    The report is written to report.md and report.html beside results.json, curves.csv and the plots.
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    if report:
        shared.refuse_beside(context, "--report", {"report"})
        _write_report(streams, report, json=json)
        return
    if quick and full:
        raise UsageError("--quick and --full exclude each other")
    if folder is None:
        raise UsageError("give a folder of clean pictures")
    shared.require_folders(folder, val)
    preset: dict[str, Any] = QUICK if quick else FULL if full else {}
    given = {
        "activations": shared.parse_names(activations),
        "tasks": shared.parse_names(tasks),
        "initialisations": shared.parse_names(initialisations),
        "skips": _switches(skips),
        "depths": shared.parse_numbers(depths, "--depth", ",", int),
        "upsamplings": shared.parse_names(upsamplings),
        "optimizers": shared.parse_names(optimizers),
        "architecture": architecture,
        "width": width,
        "seeds": seeds,
        "rates": shared.parse_numbers(rates, "--rates", ",", float),
        "steps": steps,
        "sweep_steps": sweep_steps,
        "batch": batch,
        "patch": patch,
    }
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    from deconv_cli.images.paths import folder_name
    from deconv_cli.network.container import thread_limit
    from deconv_cli.study.arms import Settings
    from deconv_cli.study.study import study as carry_out

    settings = Settings(**{**preset, **values})
    where = out or Path(f"{folder_name(folder)}-study")
    _refuse_pictures(where, folder, val)
    with graceful_stop() as stop, streams.progress(0, "run") as bar:

        def tell(progress: Progress) -> None:
            bar.total = progress.total
            bar.update(progress.done - bar.n)
            streams.message(_in_words(progress))

        complete = carry_out(
            [folder],
            where,
            settings,
            validation=val,
            jobs=jobs or thread_limit() or os.cpu_count() or 1,
            report=tell,
            stop=stop,
        )
    if complete:
        _write_report(streams, where, json=json)
    else:
        streams.message(f"stopped; the same command goes on with the study in {where}")
    raise typer.Exit(stop.code or ExitCode.OK)


def _refuse_pictures(out: Path, *given: Path | None) -> None:
    """Refuse to put plots where the next study, or training, would take them for pictures."""
    from deconv_cli.images import find_pictures
    from deconv_cli.training.run_files import is_study_folder

    if not out.is_dir():
        return
    among_given = any(out.samefile(folder) for folder in given if folder)
    if among_given or (not is_study_folder(out) and find_pictures(out, recursive=False)):
        raise UsageError(f"{out}: the results would lie among pictures; give another --out")


def _write_report(streams: Streams, folder: Path, *, json: bool) -> None:
    """Write the report, print its table and verdicts."""
    from dataclasses import asdict

    from deconv_cli.study.report import main_table, write_report
    from deconv_cli.study.summary import load_summary
    from deconv_cli.study.verdicts import verdicts

    summary = load_summary(folder / "results.json")
    files = write_report(folder)
    judged = verdicts(summary)
    if json:
        arms = [arm.to_dict() for arm in summary.arms]
        facts = {"report": str(files[0]), "unit": summary.unit, "arms": arms}
        streams.json({**facts, "verdicts": [asdict(verdict) for verdict in judged]})
    else:
        grid = main_table(summary)
        cells = [[cell.replace("**", "") for cell in row[:6]] for row in (grid.headings, *grid.rows)]
        streams.table(cells_table(cells))
        for verdict in judged:
            streams.data(f"{verdict.claim} {verdict.conclusion}.")
    streams.message(f"{files[0]}: the report; {files[1].name} is the same in one file")


def _switches(text: str | None) -> list[bool] | None:
    names = shared.parse_names(text)
    if names is None:
        return None
    if not set(names) <= {"on", "off"}:
        raise UsageError(f"--skips takes on, off, or on,off, not '{text}'")
    return [name == "on" for name in names]


def _in_words(progress: Progress) -> str:
    run, result = progress.run, progress.result
    unit = "%" if run.arm.task == "classify" else " dB"
    score = "diverged" if result["diverged"] else f"{result['score']:.2f}{unit}"
    what = f"rate {run.rate:g}" if run.sweep else f"seed {run.seed} at rate {run.rate:g}"
    return f"{progress.done} of {progress.total}: {run.arm.name}, {what}: {score}"
