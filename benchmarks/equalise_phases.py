"""Take out of the last layer of a super-resolution what it adds to noise on some pixels of its grid and not on others.

python benchmarks/equalise_phases.py sr-x2-trained.safetensors data/train/bsds396 --out sr-x2-stage4.safetensors

The last layer makes scale x scale pixels out of every feature vector, each by a matrix of its own, and nothing in
pictures asks that all answer noise alike. In the mean over noise the features are m, and the answers d beside their
mean; d times u, with u . m = 1, is taken from the matrices. Of all such u it is the one that changes pictures least:
C^-1 m over m . C^-1 m, where C is the second moment of the features of pictures and of flat colours.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deconv_cli.degradation.shrinking import shrink
from deconv_cli.errors import UsageError
from deconv_cli.images import find_pictures, to_float
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.network.weights import load_weights, save_weights
from deconv_cli.training.data import read_rgb8

SIDE = 320
PICTURES = 40
COLOURS = 60
DRAWS = 30
FLAT_WEIGHT = 10.0
"""Of the flat colours against the pictures, in which a flat patch is rare and a shift of it in plain sight."""
BORDER = 8


def main() -> None:
    """Write the weights with the phases equalised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--noise", type=float, default=10, help="its standard deviation on mid-gray, of 255")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    weights = load_weights(arguments.weights)
    network = weights.build()
    kernel = network.tail.weight.detach().double()
    scale = weights.description.scale
    if kernel.shape[2:] != (scale, scale):
        raise UsageError(f"{arguments.weights}: its last layer does not make every pixel by a matrix of its own")

    paths = find_pictures(arguments.pictures, recursive=True)[:PICTURES]
    pictures = features(network, (shrink(crop(path, scale), scale) for path in paths))
    rng = np.random.default_rng(0)
    flat = features(network, (np.broadcast_to(colour, (32, 32, 3)) for colour in rng.random((COLOURS, 3), np.float32)))
    noisy = (0.5 + rng.normal(0, arguments.noise / 255, (DRAWS, 96, 96, 3))).astype(np.float32)
    mean = features(network, noisy).mean(0)

    answers = torch.einsum("i,iokl->okl", mean, kernel)
    beside = answers - answers.mean((1, 2), keepdim=True)
    moments = [samples.T @ samples / len(samples) for samples in (pictures, flat)]
    moment = moments[0] / moments[0].trace() + FLAT_WEIGHT * moments[1] / moments[1].trace()
    direction = torch.linalg.solve(moment + 1e-6 * torch.eye(len(moment)), mean)
    direction /= direction @ mean
    kernel -= torch.einsum("i,okl->iokl", direction, beside)
    changed = {"tail.weight": kernel.float().numpy()}
    save_weights(arguments.out, dataclasses.replace(weights, parameters={**weights.parameters, **changed}))
    print(f"answers to noise were up to {255 * float(beside.abs().max()):.2f} of 255 beside their mean")
    change = (pictures @ direction).square().mean().sqrt() * beside.abs().max()
    print(f"pictures change by {255 * float(change):.2f} of 255 (root mean square)")


def crop(path: Path, scale: int) -> NDArray[np.float32]:
    """Return at most `SIDE` x `SIDE` x 3 of a picture, 0..1, of sides that are multiples of twice the scale."""
    picture = to_float(read_rgb8(path)[:SIDE, :SIDE])
    height, width = (side // (2 * scale) * 2 * scale for side in picture.shape[:2])
    return picture[:height, :width]


@torch.inference_mode()
def features(network: RestorationNetwork, images: Iterable[NDArray[np.float32]]) -> Tensor:
    """Return what the last layer sees of pictures, H x W x 3 each, away from their borders: N x channels, float64."""
    found = []
    for image in images:
        seen = network.features(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None])[0]
        found.append(seen[:, BORDER:-BORDER, BORDER:-BORDER].flatten(1).T.double())
    return torch.cat(found)


if __name__ == "__main__":
    main()
