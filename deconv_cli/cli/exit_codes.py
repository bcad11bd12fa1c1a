"""What the exit status of every command means."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status; the documentation is made from these descriptions."""

    def __new__(cls, value: int, description: str) -> ExitCode:
        """Attach the description to the value."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    description: str

    OK = 0, "done; also when everything was complete already"
    FAILED = 1, "at least one file failed, the rest were done; or a training or comparison failed"
    USAGE = 2, "the request cannot be carried out; nothing was done"
    NOTHING_FOUND = 3, "no picture was found"
    INTERRUPTED = 130, "stopped by Ctrl-C (SIGINT), after the current file or step"
    TERMINATED = 143, "stopped by SIGTERM, after the current file or step"
