"""Count the units of weights that are never on, layer by layer.

python benchmarks/dead_units.py denoise other.safetensors

A unit is a channel behind an activation; it is dead here if it is on at no place of scikit-image's cat at noise levels
5, 25 and 50. `deconv train --watch-gradients` tells the same of a training while it runs.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from skimage import data

from deconv_cli.degradation.noise import LEVEL_SCALE, add_gaussian_noise
from deconv_cli.images import to_float
from deconv_cli.network.activations import find_activation
from deconv_cli.network.bundled import find_weights
from deconv_cli.network.weights import load_weights
from deconv_cli.training.gradient_health import observed

LEVELS = (5.0, 25.0, 50.0)


def main() -> None:
    """Print a line for every layer of every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="names or files of denoising weights")
    for name in parser.parse_args().weights:
        weights = load_weights(find_weights(name))
        clean = to_float(data.chelsea()[20:276, 100:356])
        rng = np.random.default_rng(0)
        noisy = np.stack([add_gaussian_noise(clean, level, rng) for level in LEVELS])
        network = weights.build()
        with torch.no_grad(), observed(network, find_activation(weights.description.architecture.activation)) as seen:
            network(torch.from_numpy(noisy).permute(0, 3, 1, 2), torch.tensor(LEVELS) / LEVEL_SCALE)
        print(name)
        for layer in seen:
            units = network.get_submodule(layer.name.replace("activation", "conv1")).out_channels
            print(f"  {layer.name:24} {round((layer.off or 0.0) * units):4} of {units} never on")


if __name__ == "__main__":
    main()
