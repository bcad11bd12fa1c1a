"""Put trained weights into ``weights/``: measure them, and write file, card and registry entry together.

python benchmarks/publish_weights.py runs/denoise.safetensors denoise \
    --summary "colour and gray Gaussian noise, sigma 0 to 75" --data-terms "..." --limits "..." \
    --bench data/bench/CBSD68_10 data/bench/Set12

Afterwards ``python benchmarks/make_tables.py`` writes docs/benchmarks.md anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from deconv_cli.evaluation.bench import Conditions, Method, bench
from deconv_cli.images import find_pictures, read_frame
from deconv_cli.network.bundled import bundled_weights
from deconv_cli.network.weights import Weights, load_weights, save_weights
from deconv_cli.restoration.restorer import Restorer
from deconv_cli.tasks import Task
from deconv_cli.training.config import TrainConfig

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def main() -> None:
    """Publish one file of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="file that train wrote")
    parser.add_argument("name", help="name of the bundled weights")
    parser.add_argument("--summary", required=True, help="a line for `deconv models list`")
    parser.add_argument("--data-terms", required=True, help="terms of the training data, for the card")
    parser.add_argument("--limits", required=True, help="what the weights are not good at, for the card")
    parser.add_argument("--origin", default="", help="what was compressed first, if it is not bundled now")
    parser.add_argument("--history", default="", help="how the weights came about before this training")
    parser.add_argument("--bench", type=Path, nargs="+", required=True, help="folders to measure on")
    parser.add_argument("--against", nargs="*", default=[], help="classical methods, and files of weights, to compare")
    arguments = parser.parse_args()

    weights = load_weights(arguments.trained)
    restorer = Restorer(arguments.trained)
    scale = restorer.description.scale
    methods = [Method.of_weights(restorer, arguments.name)]
    for other in arguments.against:
        is_file = Path(other).is_file()
        methods.append(
            Method.of_weights(Restorer(other), Path(other).stem) if is_file else Method.classical(other, scale)
        )
    results = [
        {"pictures_name": folder.name, "flags": flags, **result.to_dict()}
        for folder in arguments.bench
        for flags, conditions in protocols(restorer.task, scale, folder)
        for result in [bench(find_pictures(folder, recursive=False), methods, conditions, levels(conditions))]
    ]
    weights = dataclasses.replace(
        weights,
        description=dataclasses.replace(weights.description, name=arguments.name),
        scores={**weights.scores, "bench": results},
    )
    path = WEIGHTS / f"{arguments.name}.safetensors"
    save_weights(path, weights)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if "compression" not in weights.recipe:
        fields = {field.name for field in dataclasses.fields(TrainConfig)}
        recipe = {key: value for key, value in weights.recipe.items() if key in fields}
        path.with_suffix(".toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
    path.with_suffix(".md").write_text(card(weights, results, sha256, arguments), encoding="utf-8")
    registry = WEIGHTS / "registry.json"
    entries = json.loads(registry.read_text(encoding="utf-8"))
    entries[arguments.name] = {"sha256": sha256, "summary": arguments.summary}
    registry.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def protocols(task: Task, scale: int, folder: Path) -> Iterator[tuple[str, Conditions]]:
    """Yield the flags of `deconv bench` and the conditions under which a folder is measured.

    Colour JPEG is scored on RGB, on luma, and as papers on gray JPEG do.
    """
    flags = "" if task.name == "denoise" else f" --scale {scale}" if scale > 1 else f" --task {task.name}"
    yield flags, Conditions(task, scale)
    in_colour = any(read_frame(path).pixels.ndim == 3 for path in find_pictures(folder, recursive=False))
    if task.name == "decompress" and in_colour:
        yield flags + " --channel y", Conditions(task, channel="y")
        yield flags + " --gray", Conditions(task, gray=True)


def levels(conditions: Conditions) -> tuple[float, ...]:
    """Return the levels that the field reports."""
    return (conditions.scale,) if conditions.scale > 1 else conditions.task.report_levels


def card(weights: Weights, results: list[dict[str, Any]], sha256: str, arguments: argparse.Namespace) -> str:
    """Write the card of the weights, in Markdown."""
    description, recipe = weights.description, weights.recipe
    architecture = description.architecture
    lines = [
        f"# {description.name}",
        "",
        f"{arguments.summary[0].upper()}{arguments.summary[1:]}.",
        "",
        f"* Task {description.task}" + (f", scale {description.scale}" if description.scale > 1 else "") + ".",
        f"* {architecture.parameters / 1e6:.2f} M parameters, {architecture.multiply_adds / 1e3:.0f} K multiply-adds a"
        f" pixel of the result; levels of {', '.join(map(str, architecture.widths))} channels with"
        f" {', '.join(map(str, architecture.blocks))} blocks; activation {architecture.activation};"
        f" {'int8 and ' if weights.quantization else ''}float16 on disk.",
        compression(weights, arguments.origin) if "compression" in recipe else training(weights),
        *([f"* {arguments.history}"] if arguments.history else []),
        f"* Training data: {arguments.data_terms}",
        f"* Limits: {arguments.limits}",
        f"* sha256 {sha256}",
    ]
    for result in results:
        lines += [
            "",
            f"## {result['pictures_name']}",
            "",
            f"`deconv bench {result['pictures_name']}{result['flags']}`; {result['conditions']};"
            f" network in {result['precisions'][description.name]}.",
            "",
            "| level | method | input PSNR / SSIM | PSNR / SSIM |",
            "|---|---|---|---|",
            *(
                f"| {row['level']:g} | {row['method']} | {row['input_psnr']:.3f} / {row['input_ssim']:.4f} |"
                f" {row['psnr']:.3f} / {row['ssim']:.4f} |"
                for row in result["rows"]
            ),
        ]
    return "\n".join(lines) + "\n"


def training(weights: Weights) -> str:
    """Say in a line of the card how the weights were trained."""
    recipe = weights.recipe
    start = f" --init {recipe['init']}" if recipe["init"] else ""
    start += f" --teacher {recipe['teacher'].split()[0]}.safetensors" if recipe.get("teacher") else ""
    return (
        f"* Trained in {recipe['step']} steps of {recipe['seconds'] / 60:.0f} minutes, by"
        f" `deconv train {' '.join(recipe['folders'])} --config weights/{weights.description.name}.toml{start}`."
    )


def compression(weights: Weights, origin: str) -> str:
    """Say in a line of the card from which weights `deconv compress` made these, and how."""
    done: dict[str, Any] = weights.recipe["compression"]
    chain = [done]
    while "earlier" in chain[0]:
        chain.insert(0, chain[0]["earlier"])
    sha256 = chain[0]["of"]
    origin = origin or next(name for name, entry in bundled_weights().items() if entry.sha256 == sha256)
    sources = [origin, *(f"step{number}.safetensors" for number in range(1, len(chain)))]
    results = [*(f" --out {source}" for source in sources[1:]), ""]
    commands = [
        f"`deconv compress {source} {compress_options(step)}{result}`"
        for step, source, result in zip(chain, sources, results, strict=True)
    ]
    kept = ["head", "tail", *done.get("in_float", [])]
    layers = f"; {len(weights.quantization)} layers in int8, in float {', '.join(kept)}" if done["quantize"] else ""
    return f"* Made of `{origin}` (sha256 {sha256}) by {', then '.join(commands)}{layers}."


def compress_options(done: dict[str, Any]) -> str:
    """Return folders and options of a compression, as on the command line."""
    options = [
        *([f"--prune {done['prune']:g}"] if done["prune"] else []),
        *([f"--quantize {done['quantize']} --max-loss {done['max_loss']:g}"] if done["quantize"] else []),
        *([f"--finetune {done['finetune']}"] if done["finetune"] else []),
        *([f"--lr {done['lr']:g}"] if done["lr"] else []),
        *([f"--levels {','.join(f'{level:g}' for level in done['levels'])}"] if done["levels"] else []),
        *([f"--batch {done['batch']}"] if done["batch"] else []),
        *([f"--patch {done['patch']}"] if done["patch"] else []),
    ]
    return f"{' '.join(done['folders'])} --val val {' '.join(options)}"


if __name__ == "__main__":
    main()
