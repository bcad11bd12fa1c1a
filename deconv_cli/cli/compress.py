"""``deconv compress``."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.reporting import cells_table
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.errors import DeconvError, NoPicturesError, UsageError

if TYPE_CHECKING:
    from deconv_cli.cli.streams import Streams
    from deconv_cli.compression.compress import Compressed, Compression
    from deconv_cli.network.description import Description
    from deconv_cli.training.loop import Progress
    from deconv_cli.training.run_files import RunFiles

METHOD, TUNING = "What is done", "Fine-tuning"


def compress(
    context: typer.Context,
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", show_default=False, help="Bundled weights, or a file that train wrote.")
    ],
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            show_default=False,
            help="Clean pictures to decide by and to train on: best those that trained the weights.",
        ),
    ],
    prune: Annotated[
        float,
        typer.Option(
            metavar="FRACTION", help="Take out so much of the multiply-adds, as channels.", rich_help_panel=METHOD
        ),
    ] = 0.0,
    quantize: Annotated[
        str,
        typer.Option(
            metavar="int8",
            help="Run layers in eight bits: all that can stand it.",
            show_default=False,
            rich_help_panel=METHOD,
        ),
    ] = "",
    max_loss: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="Most that --quantize may cost at any level; sensitive layers stay in float until it does not.",
            rich_help_panel=METHOD,
        ),
    ] = 0.05,
    levels: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Degradation levels to measure at. [those that the task's papers report]"),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp16|fp32", help="Number format on disk of what is not int8.")
    ] = "fp16",
    finetune: Annotated[
        int,
        typer.Option(
            metavar="STEPS",
            help="Train so many steps after pruning, and again on rounded layers.",
            rich_help_panel=TUNING,
        ),
    ] = 0,
    lr: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Learning rate. [0.3 of the optimizer's own after pruning, 0.05 on rounded layers]",
            show_default=False,
            rich_help_panel=TUNING,
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Patches a step. [as trained]", rich_help_panel=TUNING)
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=8, help="Side of a patch in pixels. [as trained]", rich_help_panel=TUNING)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides what is drawn. [as trained]", rich_help_panel=TUNING)
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to validate the fine-tuning on. [a tenth, held out]"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures for the report. [those to validate on]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The compressed weights. [WEIGHTS-pruned-int8.safetensors]"),
    ] = None,
    device: shared.Device = "auto",
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Make weights smaller and faster, and measure what that costs.

    deconv compress denoise ./images --quantize int8

    deconv compress denoise ./images --prune 0.5 --finetune 3000

    Beside the weights a folder of the same name gets the report (JSON and PNG) and the files of the fine-tuning.
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.compression.compress import Callbacks, Compression, refuse
    from deconv_cli.compression.compress import compress as run
    from deconv_cli.network.bundled import find_weights, load_by_name
    from deconv_cli.network.device import find_device
    from deconv_cli.training.run_files import RunFiles

    wanted = Compression(
        prune=prune,
        quantize=quantize,
        max_loss=max_loss,
        finetune=finetune,
        levels=tuple(shared.parse_numbers(levels, "--levels", ",", float) or ()),
        precision=precision,
        lr=lr or 0.0,
        batch=batch,
        patch=patch,
        seed=seed,
    )
    source = find_weights(weights)
    files = RunFiles(out or Path(f"{source.stem}{_suffix(wanted)}.safetensors"))
    _refuse_paths(source, files, replace=overwrite)
    where = find_device(device)
    shared.require_folders(*folders, val, test)
    loaded = load_by_name(weights)
    refuse(loaded, source, wanted)
    pictures = _test_pictures(folders, val, test, loaded.description)

    with graceful_stop() as stop, streams.progress(finetune * (bool(prune) + bool(quantize)), "step") as bar:

        def trained(progress: Progress) -> None:
            bar.update()
            bar.set_postfix_str(f"loss {progress.loss:.4f}")
            if progress.scores:
                mean = ", ".join(f"level {score.level:g}: {score.psnr:.2f} dB" for score in progress.scores)
                streams.message(f"step {progress.step} of {progress.steps}: {mean}")

        result = run(
            source,
            folders,
            files.out,
            wanted,
            validation=val,
            device=where,
            callbacks=Callbacks(
                stage=streams.message,
                trained=trained,
                layers=lambda names: streams.track(names, len(list(names)), "layer"),
                stop=stop,
            ),
        )
    if result is None:
        kept = f", and what was trained so far is in {files.folder}" if finetune and files.folder.is_dir() else ""
        streams.message(f"stopped; no weights were written{kept}")
        raise typer.Exit(stop.code or ExitCode.FAILED)
    failed = _report(streams, source, files, result, pictures, wanted, device, json=json)
    raise typer.Exit(stop.code or (ExitCode.FAILED if failed else ExitCode.OK))


def _suffix(wanted: Compression) -> str:
    return ("-pruned" if wanted.prune else "") + (f"-{wanted.quantize}" if wanted.quantize else "")


def _refuse_paths(source: Path, files: RunFiles, *, replace: bool) -> None:
    shared.require_weights_path(files.out)
    if files.out.resolve() == source.resolve() or files.folder.resolve() in source.resolve().parents:
        raise UsageError(f"{files.out}: would overwrite the weights that are to be compressed; give another --out")
    if not replace and (files.out.exists() or files.folder.exists()):
        raise UsageError(f"{files.out}: exists already; use --overwrite to replace it, or --out")
    if not files.out.parent.is_dir():
        raise UsageError(f"{files.out}: give a file in a folder that exists")


def _test_pictures(folders: list[Path], val: Path | None, test: Path | None, description: Description) -> list[Path]:
    """Return the pictures to report on: those of --test, or those that the fine-tuning validates on.

    That none can be measured is better found out before hours of fine-tuning than after them.
    """
    from deconv_cli.evaluation.bench import Conditions, require_measurable
    from deconv_cli.images import find_pictures
    from deconv_cli.tasks import find_task
    from deconv_cli.training.data import split_pictures

    pictures = find_pictures(test, recursive=False) if test else split_pictures(folders, val)[1]
    if not pictures:
        raise NoPicturesError(f"{test}: no picture was found in this folder")
    require_measurable(pictures, Conditions(find_task(description.task), description.scale))
    return pictures


def _report(
    streams: Streams,
    source: Path,
    files: RunFiles,
    result: Compressed,
    pictures: list[Path],
    wanted: Compression,
    device: str,
    *,
    json: bool,
) -> bool:
    """Measure before and after, and write, plot and print it; return whether pictures failed."""
    from deconv_cli.compression.compress import levels_to_measure
    from deconv_cli.compression.report import measure, plot
    from deconv_cli.images import write_atomically
    from deconv_cli.tasks import find_task

    task = find_task(result.weights.description.task)
    try:
        report = measure(
            source,
            files.out,
            pictures,
            levels_to_measure(result.weights.description, wanted.levels),
            in_float=result.choice.in_float if result.choice else (),
            device=device,
            progress=lambda items: streams.track(items, len(items), "picture"),
        )
    except DeconvError as error:
        raise DeconvError(f"{error}; {files.out}: the compressed weights were written, but without a report") from error
    for failure in report.scores.failed:
        streams.error(failure.reason)
    files.make_folder()
    write_atomically(files.report, json_module.dumps(report.to_dict(), indent=2, allow_nan=False).encode())
    plot(report, files.report_plot, task.level_name)
    if json:
        streams.json({"weights": str(files.out), **report.to_dict()})
    else:
        streams.table(cells_table(report.cells("level")))
        streams.data(f"{report.scores.pictures} pictures; {report.scores.conditions}")
    if report.in_float:
        streams.message(f"in float because of their sensitivity: {', '.join(report.in_float)}")
    streams.message(f"{files.out}: the compressed weights; what they save and cost is in {files.folder}")
    streams.message(f"try them: deconv restore --weights {shlex.quote(str(files.out))} INPUT OUTPUT")
    return bool(report.scores.failed)
