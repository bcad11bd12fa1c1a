"""Arrays through a network, by the first engine that works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError, out_of_memory
from deconv_cli.network.engines import Engine, EngineKind, find_engines
from deconv_cli.network.weights import Weights

Floats = NDArray[np.float32]

NOT_FINITE = "its output is not finite"

log = logging.getLogger(__name__)


class Runner:
    """A network on one device; an engine that fails gives way to the next for good, unless it was asked for by name.

    Threads may share one: they wait for each other.

    Parameters
    ----------
    weights
        The network.
    device
        ``cpu``, ``cuda`` or ``mps``.
    engine
        Name of an engine, or ``auto``.

    Attributes
    ----------
    ran
        The engine that worked last, by name, and the number format that it ran in.
    """

    def __init__(self, weights: Weights, device: str, engine: str) -> None:
        self.weights, self.device, self.engine = weights, device, engine
        self._loaded: dict[tuple[str, str], Engine] = {}
        self._failed: dict[str, str] = {}
        self._not_finite: set[str] = set()
        self.ran = "", ""
        self._free = threading.Lock()

    @property
    def fallback(self) -> str | None:
        """Which engines gave way and why, or None."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._failed.items()) or None

    def run(self, x: Floats, precision: str) -> Floats:
        """Predict what is to be added to pictures; see `deconv_cli.network.engines.Engine.run`.

        What is not finite is done again in float32, as is all that follows, and then by the other engines.

        Raises
        ------
        DeconvError
            If no engine works, or the output is not finite in any.
        MemoryError, RuntimeError
            If memory runs out; see `deconv_cli.errors.out_of_memory`.
        """
        with self._free:
            return self._run(x, precision)

    def _run(self, x: Floats, precision: str) -> Floats:
        precision = "fp32" if precision in self._not_finite else precision
        reasons: dict[str, str] = {}
        for kind in self._candidates(precision):
            try:
                output = self._load(kind, precision).run(x)
            except (DeconvError, RuntimeError) as error:
                if out_of_memory(error):
                    raise
                reasons[kind.name] = str(error).strip().partition("\n")[0]
                continue
            if np.isfinite(output).all():
                self._give_up(reasons, kind.name)
                self.ran = kind.name, precision
                return output
            reasons[kind.name] = NOT_FINITE
            if precision != "fp32":
                output = self._run(x, "fp32")
                self._not_finite.add(precision)
                self._give_up({f"{name} in {precision}": reason for name, reason in reasons.items()}, "fp32")
                return output
        if set(reasons.values()) == {NOT_FINITE}:
            raise DeconvError("the network's output is not finite; check the weights and the input for NaN")
        raise DeconvError("; ".join(reasons.values()))

    def _candidates(self, precision: str) -> list[EngineKind]:
        kinds = find_engines(self.engine, self.device, precision)
        return [kind for kind in kinds if kind.name not in self._failed]

    def _load(self, kind: EngineKind, precision: str) -> Engine:
        key = kind.name, precision
        if key not in self._loaded:
            self._loaded[key] = kind.load(self.weights, self.device, precision)
            log.debug("%s runs in %s on %s, %s", self.weights.description.name, kind.name, self.device, precision)
        return self._loaded[key]

    def _give_up(self, reasons: dict[str, str], instead: str) -> None:
        """Do without what failed, engines or number formats, where another one works."""
        if not reasons:
            return
        for name, reason in reasons.items():
            log.warning("%s: %s; going on with %s", name, reason, instead)
        self._failed |= reasons
        self._loaded = {
            (name, precision): engine
            for (name, precision), engine in self._loaded.items()
            if name not in self._failed and precision not in self._not_finite
        }


def self_ensemble(network: Callable[[Floats], Floats], x: Floats) -> Floats:
    """Average a network's output over the eight symmetries of the square, turned back."""
    total: Floats | None = None
    for quarter_turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(x, quarter_turns, (2, 3))
            output = network(np.ascontiguousarray(turned[..., ::-1] if mirrored else turned))
            output = np.rot90(output[..., ::-1] if mirrored else output, -quarter_turns, (2, 3))
            total = output if total is None else total + output
    assert total is not None
    return total / np.float32(8)
