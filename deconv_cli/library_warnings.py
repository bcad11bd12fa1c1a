"""What libraries warn of: it is for developers, and what users are to know the package says itself."""

from __future__ import annotations

import logging
import warnings


def log_library_warnings() -> None:
    """Turn Python's warnings into entries of the package's log, from now on and in this process."""
    warnings.showwarning = _log


def _log(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object) -> None:
    logging.getLogger("deconv_cli").debug("%s:%d: %s: %s", filename, lineno, category.__name__, message)
