"""``deconv classify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.errors import NoPicturesError


def classify(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", show_default=False, help="Pictures, and folders of pictures.")
    ],
    weights: Annotated[
        str, typer.Option(metavar="FILE", help="A file that train --task classify wrote.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many classes to name, the likeliest first.")] = 1,
    recursive: shared.Recursive = False,
    device: shared.Device = "auto",
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Tell what pictures show, with a classifier that train --task classify made.

    deconv classify photo.jpg --weights flowers-classify-relu.safetensors --top 3
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.evaluation.classification import classify as predict
    from deconv_cli.images import find_pictures

    paths: list[Path] = []
    for image in images:
        found = find_pictures(image, recursive=recursive) if image.is_dir() else [image]
        if not found:
            raise NoPicturesError(f"{image}: no picture was found in this folder")
        paths += found
    failed = False
    for prediction in streams.track(predict(paths, weights, top=top, device=device), len(paths), "picture"):
        if prediction.error:
            failed = True
            streams.error(prediction.error)
        if json:
            classes = [{"class": name, "probability": round(share, 6)} for name, share in prediction.classes]
            streams.json({"path": str(prediction.path), "classes": classes, "error": prediction.error or None})
        elif not prediction.error:
            named = ", ".join(f"{name} {share:.1%}" for name, share in prediction.classes)
            streams.data(f"{prediction.path}: {named}")
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)
