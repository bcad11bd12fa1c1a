"""The weights that ship with the package."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from deconv_cli.errors import DeconvError, UsageError, unknown_name

if TYPE_CHECKING:
    from deconv_cli.network.weights import Weights

REGISTRY = "registry.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundled:
    """An entry of the registry: the name users type, the file, its hash, and a line about it."""

    name: str
    path: Path
    sha256: str
    summary: str

    @property
    def card(self) -> str:
        """What the weights are, what trained them, what they score and where they fail, in Markdown.

        Raises
        ------
        DeconvError
            If it is missing.
        """
        try:
            return self.path.with_suffix(".md").read_text(encoding="utf-8")
        except OSError as error:
            raise DeconvError(f"{self.path.with_suffix('.md')}: the card is missing; install deconv again") from error

    def verify(self) -> None:
        """Compare the file with its hash.

        Raises
        ------
        DeconvError
            If the file is missing or differs.
        """
        if not self.path.is_file():
            raise DeconvError(f"{self.path}: the bundled weights '{self.name}' are missing; install deconv again")
        self.check(hashlib.sha256(self.path.read_bytes()).hexdigest())

    def check(self, sha256: str) -> None:
        """Compare the hash of what was read from the file with the one it should have.

        Raises
        ------
        DeconvError
            If it differs.
        """
        if sha256 != self.sha256:
            raise DeconvError(f"{self.path}: the bundled weights '{self.name}' are damaged; install deconv again")


def weights_folder() -> Path:
    """Return the folder of the bundled weights: inside the package, or at the top of a checkout."""
    packaged = Path(str(resources.files("deconv_cli"))) / "weights"
    checkout = Path(__file__).resolve().parents[2] / "weights"
    return packaged if packaged.is_dir() else checkout


def bundled_weights() -> dict[str, Bundled]:
    """Return the registry, name to entry.

    Raises
    ------
    DeconvError
        If the installation has no registry.
    """
    folder = weights_folder()
    try:
        entries = json.loads((folder / REGISTRY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeconvError(
            f"{folder / REGISTRY}: cannot read the list of bundled weights; install deconv again"
        ) from error
    return {
        name: Bundled(name, folder / f"{name}.safetensors", entry["sha256"], entry["summary"])
        for name, entry in entries.items()
    }


def find_weights(name_or_file: str | Path) -> Path:
    """Return the file of bundled weights by name, or a file as given.

    Raises
    ------
    UsageError
        If it is neither; the message lists the names.
    """
    bundled = bundled_weights()
    if str(name_or_file) in bundled:
        return bundled[str(name_or_file)].path
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.suffix:
        raise UsageError(f"{path}: there is no such weights file; bundled names: {', '.join(sorted(bundled))}")
    raise unknown_name("weights", str(name_or_file), bundled)


def load_by_name(name_or_file: str | Path) -> Weights:
    """Load bundled weights by name, or a file as given.

    Raises
    ------
    UsageError
        If it is neither, or the file cannot be read, is damaged, or holds something else.
    DeconvError
        If bundled weights are damaged.
    """
    from deconv_cli.network.weights import load_weights

    path, entry = find_weights(name_or_file), bundled_weights().get(str(name_or_file))
    try:
        loaded = load_weights(path)
    except DeconvError as error:
        # A file is part of the request; bundled weights are not, and a batch goes on with what needs others.
        raise error if entry else UsageError(str(error)) from error
    log.debug("weights %s: %s, sha256 %s", name_or_file, path, loaded.sha256)
    if entry:
        entry.check(loaded.sha256)
    return loaded
