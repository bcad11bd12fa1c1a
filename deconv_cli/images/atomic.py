"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from deconv_cli.errors import DeconvError


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all.

    The data go to a hidden file beside the target, reach the disk, and take the target's name. A file that is
    replaced hands on its permissions; a new one gets the usual ones.

    Raises
    ------
    DeconvError
        If the file cannot be written; an earlier one is then untouched and nothing is left behind.
    """
    temporary = path.with_name(f".deconv-{secrets.token_hex(8)}.part")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DeconvError(f"{path}: cannot be written ({error.strerror or error})") from error
