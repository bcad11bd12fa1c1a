"""How fast the shipped network is beside DnCNN, RED-Net and the processor's own convolution rate.

python benchmarks/speed.py

All in one process, the candidates in turn, the median of the rounds: machines drift, so the ratios are what to quote.
DnCNN (Zhang et al. 2017, batch normalisation folded away, as it is in inference) and RED-Net (Mao et al. 2016) have
random weights here, which does not change their speed. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deconv_cli.network.device import find_device, has_native_bf16
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


@dataclass(frozen=True)
class Candidate:
    """Something to time, and the megapixels that it does in a run."""

    name: str
    run: Callable[[], object]
    megapixels: float


def prepared(network: nn.Module, dtype: torch.dtype, device: torch.device, *, channels_last: bool) -> Candidate:
    """Make a candidate of a published network."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.eval().to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.rand(1, 3, HEIGHT, WIDTH, device=device).to(dtype, memory_format=layout)
    label = f"{type(network).__name__}, {str(dtype)[6:]}, {'channels-last' if channels_last else 'NCHW'}"
    return Candidate(label, lambda: network(x), HEIGHT * WIDTH / 1e6)


def time_in_turn(candidates: Sequence[Candidate], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median megapixels a second of each, after a warm-up round."""
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for _ in range(rounds + 1):
        for candidate in candidates:
            began = time.perf_counter()
            candidate.run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[candidate.name].append(time.perf_counter() - began)
    return {
        candidate.name: candidate.megapixels / statistics.median(seconds[candidate.name][1:])
        for candidate in candidates
    }


def convolution(dtype: torch.dtype, device: torch.device) -> Candidate:
    """Make a candidate of a 3 x 3 convolution of 64 channels, channels-last: what the processor can do."""
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(1, 64, HEIGHT, WIDTH, device=device).to(dtype, memory_format=torch.channels_last)
    return Candidate(f"convolution, {str(dtype)[6:]}", lambda: conv(x), HEIGHT * WIDTH / 1e6)


@torch.inference_mode()
def main() -> None:
    """Time everything and print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    large = rng.integers(0, 256, (1224, 1632, 3), dtype=np.uint8)
    gigaflops_per_megapixel = 2 * 9 * 64 * 64 / 1e3

    formats = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_native_bf16(device.type) else {})
    print("| network | MP/s | multiply-adds / px |\n|---|---|---|")
    restorers = {name: Restorer("denoise", device=arguments.device, precision=name) for name in formats}
    adds = next(iter(restorers.values())).description.architecture.multiply_adds
    candidates = [prepared(DnCNN(), torch.float32, device, channels_last=False)]
    for name, dtype in formats.items():
        restorer = restorers[name]
        candidates += [
            prepared(DnCNN(), dtype, device, channels_last=True),
            prepared(REDNet(), dtype, device, channels_last=True),
            Candidate(f"deconv, {name}", lambda r=restorer: r.restore(small, noise_level=25), HEIGHT * WIDTH / 1e6),
            Candidate(f"deconv, {name}, 2 MP", lambda r=restorer: r.restore(large, noise_level=25), 1224 * 1632 / 1e6),
            convolution(dtype, device),
        ]
    speed = time_in_turn(candidates, arguments.rounds, device)
    costs = {
        "DnCNN": sum(p.numel() for p in DnCNN().parameters()),
        "REDNet": sum(p.numel() for p in REDNet().parameters()),
    }
    costs |= {"deconv": adds, "convolution": 9 * 64 * 64}
    for name, rate in speed.items():
        print(f"| {name} | {rate:.3f} | {costs[name.partition(',')[0]] / 1e3:.0f} K |")

    published = speed["DnCNN, float32, NCHW"]
    print("\n| ratio | " + " | ".join(formats) + " |\n|---|" + "---|" * len(formats))
    rows: dict[str, list[str]] = {}
    for name, dtype in formats.items():
        ours, kind = speed[f"deconv, {name}"], str(dtype)[6:]
        achieved = speed[f"deconv, {name}, 2 MP"] * 2 * adds / 1e3
        available = speed[f"convolution, {kind}"] * gigaflops_per_megapixel
        for label, value in {
            "to DnCNN at the same precision and layout": f"{ours / speed[f'DnCNN, {kind}, channels-last']:.1f}",
            "to DnCNN as published (float32, NCHW)": f"{ours / published:.1f}",
            "to RED-Net at the same precision and layout": f"{ours / speed[f'REDNet, {kind}, channels-last']:.1f}",
            "share of the convolution rate, 2 MP, array to array": f"{achieved / available:.0%}"
            f" ({achieved:.0f} of {available:.0f} GFLOPS)",
        }.items():
            rows.setdefault(label, []).append(value)
    for label, values in rows.items():
        print(f"| {label} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
