"""Write docs/benchmarks.md from what the bundled weights scored when they were published, and ``published.toml``.

python benchmarks/make_tables.py

Nothing is measured here: the figures stand in the weights files, which `publish_weights.py` wrote.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from deconv_cli.network.bundled import bundled_weights
from deconv_cli.network.weights import Weights, load_weights
from deconv_cli.tasks import TASKS

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs" / "benchmarks.md"
TITLES = {
    "denoise": "Denoising",
    "decompress": "JPEG decompression",
    "photo": "Camera noise",
    "sr": "Super-resolution",
}
INTRODUCTION = """# Benchmarks

Mean PSNR in dB (the mean of the pictures' values) by the field's protocols, which are named with every table.
"Measured" was run by the command above the table, on a folder with the clean pictures; "published" is what the
network's paper reports for pictures of that name; "published weights" were run on the very same pictures. Multiply-
adds are per pixel of the result. CBSD68_10 is ten pictures of CBSD68 (103070 119082 143090 160068 175043 210088
229036 260058 299086 33039); papers report all 68, which are harder: DnCNN scores 33.89 on these and 34.25 on the ten.

SSIM and everything else that belongs to a figure is on the cards: `deconv models show NAME`. The classical methods,
which `deconv bench --against nlm,tv,wavelet` (or `bicubic,lanczos`) adds to any table, are told how strong the error
is, which nobody knows outside of a benchmark. How fast: see [performance.md](performance.md).
"""


def main() -> None:
    """Write the page."""
    OUT.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    published = tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))["network"]
    bundled = [load_weights(entry.path) for entry in bundled_weights().values()]
    parts = [INTRODUCTION]
    for name, task in TASKS.items():
        own = {task.weights_name(scale) for scale in task.scales}
        weights = [entry for entry in bundled if entry.description.name in own]
        weights.sort(key=lambda entry: entry.description.scale)
        parts.append(f"## {TITLES[name]}\n")
        if not weights:
            parts.append(f"No weights are bundled yet. `deconv train ./images --task {name}` trains some.\n")
        for entry in weights:
            parts += [table(entry, result, published, task.level_name) for result in entry.scores.get("bench", [])]
    parts.append("## Sources\n")
    parts += sorted({f"* {network['name'].partition(' (')[0]}: {network['source']}" for network in published})
    return "\n".join(parts) + "\n"


def table(weights: Weights, result: dict[str, Any], published: list[dict[str, Any]], level_name: str) -> str:
    """Return the table of one folder under one set of conditions."""
    pictures, flags = result["pictures_name"], result["flags"]
    conditions, protocol = result["conditions"].partition("; output rounded")[0], result["protocol"]
    levels = sorted({row["level"] for row in result["rows"]})
    name = f"{pictures} x{weights.description.scale}" if weights.description.scale > 1 else pictures
    lines = [
        f"### {name}{' (' + flags.strip() + ')' if '--gray' in flags or '--channel' in flags else ''}",
        "",
        f"    deconv bench {pictures}{flags}{others(weights, result)}",
        "",
        f"{conditions[0].upper()}{conditions[1:]}; channel {protocol['channel']}, crop {protocol['crop']}."
        f" {level_name.capitalize()} {' / '.join(f'{level:g}' for level in levels)}.",
        "",
        "| | parameters | multiply-adds | PSNR | |",
        "|---|---|---|---|---|",
        *measured_rows(weights, result),
        *published_rows(weights, result, published),
    ]
    return "\n".join(lines) + "\n"


def others(weights: Weights, result: dict[str, Any]) -> str:
    """Return the options by which `deconv bench` measures the other methods of a table, too."""
    own = weights.description.name
    methods = [name for name in dict.fromkeys(row["method"] for row in result["rows"]) if name != own]
    networks = [name for name in methods if name in bundled_weights()]
    classical = ",".join(name for name in methods if name not in networks)
    chosen = "".join(f" --weights {name}" for name in (own, *networks)) if networks else ""
    return chosen + (f" --against {classical}" if classical else "")


def measured_rows(weights: Weights, result: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of the input and of what was measured."""
    architecture = weights.description.architecture
    own = weights.description.name
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    first = [row for row in result["rows"] if row["method"] == own]
    doing_nothing = "bicubic interpolation" if weights.description.scale > 1 else "the degraded pictures"
    yield f"| {doing_nothing} | | | {joined(row['input_psnr'] for row in first)} | measured |"
    for method in methods:
        scores = joined(row["psnr"] for row in result["rows"] if row["method"] == method)
        if method == own:
            size = f"{architecture.parameters / 1e6:.2f} M | {architecture.multiply_adds / 1e3:.0f} K"
            yield f"| **deconv**, `{own}` | {size} | **{scores}** | measured |"
        else:
            yield f"| {method} | | | {scores} | measured |"


def published_rows(weights: Weights, result: dict[str, Any], published: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the rows of other networks that fit these pictures and conditions."""
    pictures, scale = result["pictures_name"], str(weights.description.scale)
    if "--channel" in result["flags"]:
        return
    whole = pictures.partition("_")[0]
    for network in published:
        if network["task"] != weights.description.task:
            continue
        size = f"{network['parameters']} | {of_scale(network['multiply_adds'], scale)}"
        if pictures in network.get("measured", {}):
            yield f"| {network['name']} | {size} | {joined(network['measured'][pictures])} | published weights |"
        if whole in network["scores"]:
            scores = joined(of_scale(network["scores"][whole], scale))
            where = "published" if whole == pictures else f"published, all of {whole}"
            yield f"| {network['name']} | {size} | {scores} | {where} |"


def of_scale(value: Any, scale: str) -> Any:  # noqa: ANN401 - TOML values
    """Return the entry of a scale, where there is one for each."""
    return value[scale] if isinstance(value, dict) else value


def joined(scores: Iterator[float] | list[float]) -> str:
    """Return PSNR figures as tables of papers show them."""
    # As decimals: 34.275, as published, is a little less in binary, and would be rounded down.
    return " / ".join(str(Decimal(str(score)).quantize(Decimal("0.01"), ROUND_HALF_UP)) for score in scores)


if __name__ == "__main__":
    main()
