"""Arrays through a network, by the first engine that works."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError
from deconv_cli.network.engines import Engine, EngineKind, find_engines
from deconv_cli.network.weights import Weights

Floats = NDArray[np.float32]

NOT_FINITE = "its output is not finite"

log = logging.getLogger(__name__)


class Runner:
    """A network on one device; an engine that fails gives way to the next for good, unless it was asked for by name.

    Parameters
    ----------
    weights
        The network.
    device
        ``cpu``, ``cuda`` or ``mps``.
    engine
        Name of an engine, or ``auto``.
    """

    def __init__(self, weights: Weights, device: str, engine: str) -> None:
        self.weights, self.device, self.engine = weights, device, engine
        self._loaded: dict[tuple[str, str], Engine] = {}
        self._failed: dict[str, str] = {}

    @property
    def fallback(self) -> str | None:
        """Which engines gave way and why, or None."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._failed.items()) or None

    def engine_for(self, precision: str) -> str:
        """Return the name of the engine that runs in a number format."""
        return self._candidates(precision)[0].name

    def run(self, x: Floats, precision: str) -> Floats:
        """Predict what is to be added to pictures; see `deconv_cli.network.engines.Engine.run`.

        What is not finite is done again in float32, and then by the other engines.

        Raises
        ------
        DeconvError
            If no engine works, or the output is not finite in any.
        MemoryError, RuntimeError
            If memory runs out; see `out_of_memory`.
        """
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
                return output
            if precision != "fp32":
                log.warning("the network's output is not finite in %s; running in float32", precision)
                return self.run(x, "fp32")
            reasons[kind.name] = NOT_FINITE
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
        return self._loaded[key]

    def _give_up(self, reasons: dict[str, str], instead: str) -> None:
        """Do without engines that failed where another one works."""
        for name, reason in reasons.items():
            log.warning("%s: %s; going on with %s", name, reason, instead)
            self._loaded = {key: engine for key, engine in self._loaded.items() if key[0] != name}
        self._failed |= reasons


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


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an engine's error says that memory ran out."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
