"""How fast the shipped network is beside DnCNN and RED-Net; beside its own engines: ``deconv bench --speed``.

python benchmarks/speed.py

All in one process, the candidates in turn, the median of the rounds: machines drift, so the ratios are what to quote.
DnCNN (Zhang et al. 2017, batch normalisation folded away, as it is in inference) and RED-Net (Mao et al. 2016) have
random weights here, which does not change their speed. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
import torch
from torch import Tensor, nn

from deconv_cli.evaluation.speed import Candidate, time_in_turn
from deconv_cli.network.device import find_device, has_fast_bf16
from deconv_cli.restoration.restorer import Restorer

HEIGHT, WIDTH = 768, 1024


class DnCNN(nn.Sequential):
    """17 convolutions of 64 channels; the first and last meet the picture."""

    def __init__(self, layers: int = 17, width: int = 64) -> None:
        convolutions = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            convolutions += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*convolutions, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Subtract the predicted noise."""
        return x - super().forward(x)


class REDNet(nn.Module):
    """15 convolutions and 15 transposed convolutions of 64 channels, a skip every two layers."""

    def __init__(self, half: int = 15, width: int = 64) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(half))
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(width, 3 if i == half - 1 else width, 3, padding=1) for i in range(half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode at full resolution."""
        image, skips = x, []
        for index, conv in enumerate(self.convs):
            x = conv(x).relu_()
            if index % 2 == 1:
                skips.append(x)
        for index, deconv in enumerate(self.deconvs):
            x = deconv(x)
            if index % 2 == 0 and skips:
                x += skips.pop()
            x = x.relu_() if index < len(self.deconvs) - 1 else x
        return x + image


def prepared(network: nn.Module, dtype: torch.dtype, device: torch.device, *, channels_last: bool) -> Candidate:
    """Make a candidate of a published network."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.eval().to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.rand(1, 3, HEIGHT, WIDTH, device=device).to(dtype, memory_format=layout)
    label = f"{type(network).__name__}, {str(dtype)[6:]}, {'channels-last' if channels_last else 'NCHW'}"
    return Candidate(label, lambda: float(network(x)[0, 0, 0, 0]), HEIGHT * WIDTH / 1e6)


@torch.inference_mode()
def main() -> None:
    """Time everything and print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    formats = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_fast_bf16(device.type) else {})
    candidates = [prepared(DnCNN(), torch.float32, device, channels_last=False)]
    for name, dtype in formats.items():
        candidates += [prepared(network, dtype, device, channels_last=True) for network in (DnCNN(), REDNet())]
        for engine in ("auto", "torch"):
            restorer = Restorer("denoise", device=arguments.device, precision=name, engine=engine)
            ran = restorer.restore(picture, noise_level=25).engine
            run = functools.partial(restorer.restore, picture, noise_level=25)
            if engine == "auto" or ran not in candidates[-1].name:
                candidates.append(Candidate(f"deconv, {name}, {ran}", run, HEIGHT * WIDTH / 1e6))
    speed = time_in_turn(candidates, arguments.rounds)
    print("| network | MP/s |\n|---|---|")
    for name, rate in speed.items():
        print(f"| {name} | {rate:.3f} |")

    print(
        "\n| ratio | to DnCNN as published | to DnCNN, same precision | to RED-Net, same precision |\n|---|---|---|---|"
    )
    for name, rate in speed.items():
        if name.startswith("deconv"):
            kind = str(formats[name.split(", ")[1]])[6:]
            others = ("DnCNN, float32, NCHW", f"DnCNN, {kind}, channels-last", f"REDNet, {kind}, channels-last")
            print(f"| {name} | " + " | ".join(f"{rate / speed[other]:.1f}" for other in others) + " |")


if __name__ == "__main__":
    main()
