"""``python -m deconv_cli`` and the console script ``deconv``."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, before there is one."""


def main() -> NoReturn:
    """Run the command line of the process and exit with its code."""
    # Modules are hundreds of thousands of objects, none of them garbage: looking through them again and again while
    # they are loaded would take a twentieth of a short restoration.
    gc.set_threshold(100_000)
    try:
        from deconv_cli.cli.app import run

        code = run()
    except KeyboardInterrupt:  # While modules are loaded; later the command line itself catches it.
        code = INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # Whatever it is, it has been told.
            stream.flush()
    # Every file is closed by now. Leaving at once saves the half second that torch takes to unload.
    os._exit(code)


if __name__ == "__main__":
    main()
