"""Put trained weights into ``weights/``: measure them, and write file, card and registry entry together.

python benchmarks/publish_weights.py runs/denoise.safetensors denoise \
    --summary "colour and gray Gaussian noise, sigma 0 to 75" --data-terms "..." --bench data/bench/Set12
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path

import tomli_w

from deconv_cli.evaluation.bench import Bench, bench
from deconv_cli.images import find_pictures
from deconv_cli.network.weights import Weights, load_weights, save_weights
from deconv_cli.restoration.restorer import Restorer
from deconv_cli.training.config import TrainConfig

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def main() -> None:
    """Publish one file of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="file that train wrote")
    parser.add_argument("name", help="name of the bundled weights")
    parser.add_argument("--summary", required=True, help="a line for `deconv models list`")
    parser.add_argument("--data-terms", required=True, help="terms of the training data, for the card")
    parser.add_argument("--history", default="", help="how the weights came about before this training")
    parser.add_argument("--bench", type=Path, nargs="+", required=True, help="folders to measure on")
    arguments = parser.parse_args()

    weights = load_weights(arguments.trained)
    restorer = Restorer(arguments.trained)
    results = {
        folder.name: bench(find_pictures(folder, recursive=False), restorer, restorer.task.report_levels)
        for folder in arguments.bench
    }
    weights = dataclasses.replace(
        weights,
        description=dataclasses.replace(weights.description, name=arguments.name),
        scores={**weights.scores, "bench": {name: result.to_dict() for name, result in results.items()}},
    )
    path = WEIGHTS / f"{arguments.name}.safetensors"
    save_weights(path, weights)
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    recipe = {key: value for key, value in weights.recipe.items() if key in fields}
    path.with_suffix(".toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
    path.with_suffix(".md").write_text(
        card(weights, results, arguments.summary, arguments.data_terms, arguments.history), encoding="utf-8"
    )
    registry = WEIGHTS / "registry.json"
    entries = json.loads(registry.read_text(encoding="utf-8"))
    entries[arguments.name] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "summary": arguments.summary,
    }
    registry.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def card(weights: Weights, results: dict[str, Bench], summary: str, terms: str, history: str) -> str:
    """Write the card of the weights, in Markdown."""
    description, recipe = weights.description, weights.recipe
    parameters = sum(tensor.numel() for tensor in weights.parameters.values())
    lines = [
        f"# {description.name}",
        "",
        f"{summary[0].upper()}{summary[1:]}.",
        "",
        f"* {parameters / 1e6:.2f} M parameters, {description.architecture.multiply_adds / 1e3:.0f} K multiply-adds a"
        f" pixel; activation {description.architecture.activation}; float16 on disk.",
        f"* Trained in {recipe['step']} steps of {recipe['seconds'] / 60:.0f} minutes, by"
        f" `deconv train {' '.join(recipe['folders'])} --config weights/{description.name}.toml"
        + (f" --init {recipe['init']}`." if recipe["init"] else "`."),
        *([f"* {history}"] if history else []),
        f"* Training data: {terms}",
        "",
        "| pictures | level | input PSNR / SSIM | PSNR / SSIM |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row.level:g} | {row.input_psnr:.3f} / {row.input_ssim:.4f} | {row.psnr:.3f} / {row.ssim:.4f} |"
        for name, result in results.items()
        for row in result.rows
    ]
    example = next(iter(results.values()))
    lines += [
        "",
        f"Noise in float, true level given, output rounded; {example.protocol}; network in {example.precision}."
        f" Reproduce with `deconv bench FOLDER --weights {description.name}`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
