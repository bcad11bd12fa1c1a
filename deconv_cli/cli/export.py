"""``deconv export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deconv_cli.cli import options as shared
from deconv_cli.errors import UsageError


def export(
    context: typer.Context,
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS", show_default=False, help="Bundled weights, or a file that train or compress wrote."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="The file to write. [./NAME-PRECISION.onnx or .xml]"),
    ] = None,
    model_format: Annotated[
        str, typer.Option("--format", metavar="onnx|openvino", help="What to write; openvino is two files.")
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|fp16|bf16|int8",
            show_default=False,
            help="Number format of the kernels in the file; int8: of weights that compress quantized."
            " [fp32; quantized weights: int8]",
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Write weights as a model that other programs run, for pictures of any size.

    deconv export denoise --format onnx

    deconv export mine.safetensors --format openvino --precision fp16 --out mine.xml

    The model is compared with PyTorch on random numbers and on a photograph before it is written.
    """
    import dataclasses

    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.network.bundled import load_by_name
    from deconv_cli.network.export import SUFFIXES
    from deconv_cli.network.export import export as write

    loaded = load_by_name(weights)
    precision = precision or ("int8" if loaded.quantization else "fp32")
    suffix = SUFFIXES.get(model_format, "")
    path = out or Path(f"{loaded.description.name}-{precision}{suffix}")
    if suffix and path.suffix != suffix:
        raise UsageError(f"{path}: a model for {model_format} is a file that ends in {suffix}")
    files = (path, path.with_suffix(".bin")) if model_format == "openvino" else (path,)
    if existing := [str(file) for file in files if file.exists() and not overwrite]:
        raise UsageError(f"{', '.join(existing)}: exists already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: give a file in a folder that exists")
    exported = write(loaded, path, model_format, precision)
    if json:
        streams.json(dataclasses.asdict(exported))
        return
    for file in exported.files:
        streams.data(f"{file}: {Path(file).stat().st_size / 1e6:.2f} MB")
    differences = ", ".join(f"{value:.2g} ({name})" for name, value in exported.difference.items())
    streams.data(
        f"{exported.precision}, operators of {exported.opset}; largest difference to PyTorch: {differences} of 255"
    )
