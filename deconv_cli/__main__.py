"""``python -m deconv_cli`` and the console script ``deconv``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of the process and exit with its code."""
    from deconv_cli.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
