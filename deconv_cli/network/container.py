"""What the container around the process leaves it: memory, and processors, and how many threads these make."""

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


def available_memory() -> int:
    """Return the bytes that can be had: what the machine has free, or what the limits of the container leave."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_by_cgroups()])


def _left_by_cgroups() -> Iterator[int]:
    """Yield what every control group around the process leaves of its limit."""
    files = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    for folder, version in control_groups("memory"):
        left = _left(folder, *files[version])
        if left is not None:
            yield left


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # No limit ("max"), or no such file.
    # Cached files are given back when memory is needed.
    return max(0, most - used + int(stat.get(cache, 0)))


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
