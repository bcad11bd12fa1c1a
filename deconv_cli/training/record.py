"""The log of a training as JSON lines, and its curves as a picture."""

from __future__ import annotations

import contextlib
import json
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from deconv_cli.errors import cannot_write
from deconv_cli.images import write_atomically


class Record:
    """Appends one JSON object a line; a resumed training goes on in the same file.

    Parameters
    ----------
    path
        The log file.
    resumed_at
        Step from which the training goes on; lines of later steps, left by an interruption, are dropped.
    """

    def __init__(self, path: Path, resumed_at: int) -> None:
        self.path = path
        kept = [line for line in read_record(path) if line["step"] <= resumed_at] if path.exists() else []
        text = "".join(json.dumps(line) + "\n" for line in (kept if resumed_at else []))
        write_atomically(path, text.encode())

    def append(self, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Write one line; it must hold ``step``."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def read_record(path: Path) -> list[dict[str, Any]]:
    """Read a log file back, a dictionary a line; a line cut short, by a kill or a full disk, is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            # Earlier versions wrote an infinite PSNR, which JSON has no word for.
            lines.append(json.loads(text, parse_constant=lambda _: None))
    return lines


def plot_record(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw loss, learning rate and validation PSNR against the step, as PNG."""
    from matplotlib.figure import Figure

    losses = [line for line in lines if line.get("loss") is not None]
    scores = [line for line in lines if "validation" in line]
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy([line["step"] for line in losses], [line["loss"] for line in losses], color="#0072b2")
    left.set(xlabel="step", ylabel="training loss")
    left.set_title(title.encode(errors="replace").decode(), parse_math=False)
    rate = left.twinx()
    rate.plot([line["step"] for line in losses], [line["lr"] for line in losses], color="#999999", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    for at, marker in zip(range(len(scores[0]["validation"]) if scores else 0), "osD^v<>ph*" * 3, strict=False):
        series = [line["validation"][at] for line in scores]
        level, baseline = series[0]["level"], series[0]["input_psnr"]
        right.plot(
            [line["step"] for line in scores],
            [np.nan if entry["psnr"] is None else entry["psnr"] for entry in series],
            marker=marker,
            label=f"level {level:g} (input {'exact' if baseline is None else f'{baseline:.2f} dB'})",
        )
    right.set(xlabel="step", ylabel="PSNR / dB (mean per picture)", title="validation")
    right.grid(alpha=0.3)
    if scores:
        figure.legend(loc="outside lower right", ncols=3)
    data = BytesIO()
    with warnings.catch_warnings():
        # The title is a name of the user's; that the font lacks some of its letters is no matter.
        warnings.simplefilter("ignore")
        figure.savefig(data, format="png", dpi=120)
    write_atomically(path, data.getvalue())
