"""Mix weights with those that their training began from: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903, section 3).

python benchmarks/mix_weights.py sr-x3-stage2.safetensors sr-x3-stage3.safetensors 0.85 --out sr-x3.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from deconv_cli.network.weights import load_weights, save_weights


def main() -> None:
    """Write ``(1 - share) * before + share * after``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, help="the recipe of the result is this one's")
    parser.add_argument("share", type=float, help="of `after`, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    before, after = load_weights(arguments.before), load_weights(arguments.after)
    parameters = {
        name: (1 - arguments.share) * before.parameters[name] + arguments.share * kernel
        for name, kernel in after.parameters.items()
    }
    save_weights(arguments.out, dataclasses.replace(after, parameters=parameters))


if __name__ == "__main__":
    main()
