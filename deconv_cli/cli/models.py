"""``deconv models``: the weights that ship with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.errors import DeconvError

if TYPE_CHECKING:
    from deconv_cli.network.weights import Weights

models = typer.Typer(help="List, describe and verify the bundled weights.", no_args_is_help=True)


@models.command("list")
def list_models(
    context: typer.Context,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """List the bundled weights."""
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.network.bundled import bundled_weights

    entries = bundled_weights().values()
    if json:
        streams.json([{"name": entry.name, "sha256": entry.sha256, "summary": entry.summary} for entry in entries])
        return
    for entry in entries:
        streams.data(f"{entry.name}: {entry.summary}")


@models.command("show")
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", show_default=False, help="Bundled weights, or a file that train or compress wrote."
        ),
    ],
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Print what weights are, how they were trained and what they score: the card of bundled ones."""
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.network.bundled import bundled_weights, load_by_name

    bundled = bundled_weights()
    if name in bundled and not json:
        streams.data(bundled[name].card.rstrip("\n"))
        return
    facts = _facts(load_by_name(name))
    if json:
        streams.json(facts)
        return
    for title, values in facts.items():
        if not isinstance(values, dict):
            streams.data(f"{title}: {values}")
            continue
        streams.data(f"{title}:")
        for key, value in values.items():
            streams.data(f"  {key}: {value}")


def _facts(weights: Weights) -> dict[str, Any]:
    description = weights.description
    architecture = description.architecture
    return {
        "sha256": weights.sha256,
        "parameters": sum(array.size for array in weights.parameters.values()),
        "multiply-adds per pixel": round(architecture.multiply_adds),
        "layers in int8": len(weights.quantization),
        "influence radius (pixels)": architecture.influence_radius,
        "size multiple (pixels)": architecture.size_multiple,
        "description": description.to_dict(),
        "recipe": dict(weights.recipe),
        "scores": dict(weights.scores),
    }


@models.command("verify")
def verify(
    context: typer.Context,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Compare the bundled weights with their hashes."""
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    from deconv_cli.network.bundled import bundled_weights

    found: dict[str, str | None] = {}
    for entry in bundled_weights().values():
        try:
            entry.verify()
        except DeconvError as error:
            found[entry.name] = str(error)
            streams.error(str(error))
        else:
            found[entry.name] = None
            if not (json or quiet):
                streams.data(f"{entry.name}: as it should be")
    if json:
        streams.json([{"name": name, "error": error} for name, error in found.items()])
    if any(found.values()):
        raise typer.Exit(ExitCode.FAILED)
