"""What runs a network: one file an engine, each with a class ``Engine``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from deconv_cli.errors import DeconvError, UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deconv_cli.network.weights import Weights


class Engine(Protocol):
    """A network that is ready to run."""

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict what is to be added to the (enlarged) pictures.

        Parameters
        ----------
        x
            Pictures and condition planes, stacked: N x C x H x W, float32, contiguous; H and W are multiples of the
            architecture's ``size_multiple``.

        Returns
        -------
        ndarray
            N x channels x (H * scale) x (W * scale), float32.

        Raises
        ------
        RuntimeError, MemoryError
            As the library does.
        """


@dataclass(frozen=True)
class EngineKind:
    """An engine by name: where it runs and in what, and how to get it.

    Attributes
    ----------
    name
        What users type; also the name of its file here.
    devices
        Where it runs.
    precisions
        The number formats that it runs in.
    extra
        The extra of this package that installs it; empty if every installation has it.
    """

    name: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    extra: str = ""

    def require(self) -> None:
        """Refuse an engine that is not installed.

        Raises
        ------
        UsageError
            If it is not.
        """
        try:
            self._import()
        except ImportError as error:
            raise UsageError(self._explain(error)) from error

    def load(self, weights: Weights, device: str, precision: str) -> Engine:
        """Make the network ready to run.

        Raises
        ------
        DeconvError
            If the engine is not installed, or cannot be loaded or take the network.
        """
        try:
            built: Engine = self._import().Engine(weights, device, precision)
        except ImportError as error:
            raise DeconvError(self._explain(error)) from error
        except (RuntimeError, OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DeconvError(f"the engine {self.name} cannot load the network ({reason})") from error
        return built

    def _import(self) -> Any:  # noqa: ANN401 - a module
        return import_module(f"{__name__}.{self.name}")

    def _explain(self, error: ImportError) -> str:
        way_out = f"pip install 'deconv-cli[{self.extra}]'" if self.extra else "install deconv again"
        return f"the engine {self.name} cannot be imported ({error}); {way_out}"

    def refuse(self, device: str, precision: str) -> None:
        """Refuse a device or number format that the engine does not have.

        Raises
        ------
        UsageError
            If so.
        """
        for what, value, valid in (("on", device, self.devices), ("in", precision, self.precisions)):
            if value not in valid:
                raise UsageError(f"the engine {self.name} does not run {what} {value}, only {what} {', '.join(valid)}")


ENGINES = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            EngineKind("openvino", ("cpu",), ("fp32", "bf16")),
            EngineKind("onnxruntime", ("cpu",), ("fp32",), "onnxruntime"),
            EngineKind("torch", ("cpu", "cuda", "mps"), ("fp32", "bf16", "fp16")),
        )
    }
)
"""The fastest first, as measured on processors; see docs/performance.md."""


def find_engines(name: str, device: str, precision: str) -> list[EngineKind]:
    """Return the engine of that name; for ``auto`` all that run there, in the order in which to try them.

    Raises
    ------
    UsageError
        If the name is unknown, or that engine does not run on the device or in the number format.
    """
    if name == "auto":
        return [kind for kind in ENGINES.values() if device in kind.devices and precision in kind.precisions]
    if name not in ENGINES:
        raise unknown_name("engine", name, ("auto", *ENGINES))
    ENGINES[name].refuse(device, precision)
    return [ENGINES[name]]
