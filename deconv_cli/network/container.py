"""What the container around the process leaves it, and how many threads that makes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder of every control group around the process, from the innermost, and its version, 1 or 2."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, version = CGROUPS, 2
        elif controller in controllers.split(","):
            root, version = CGROUPS / controller, 1
        else:
            continue
        inner = root / place.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            yield folder, version


def thread_limit() -> int | None:
    """Return how many threads to take at most; None leaves it to the engine, which takes one for each core.

    The limit is the environment's ``OMP_NUM_THREADS``, or else the processors that the process may run on and the
    share of them that its container gets.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    limits = list(_shares())
    if hasattr(os, "sched_getaffinity") and (allowed := len(os.sched_getaffinity(0))) < (os.cpu_count() or 1):
        limits.append(allowed)
    return min(limits, default=None)


def _shares() -> Iterator[int]:
    """Yield the processors, rounded up, that every control group's share of time amounts to."""
    for folder, version in control_groups("cpu"):
        files = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        try:
            quota, period = map(int, " ".join((folder / file).read_text() for file in files).split())
        except (OSError, ValueError):
            continue  # No limit ("max"), or no such file.
        if quota > 0:
            yield math.ceil(quota / period)
