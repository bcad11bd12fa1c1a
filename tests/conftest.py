"""What the tests share: the command line in process, and real pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest

from deconv_cli.cli.app import run as run_app
from deconv_cli.cli.streams import Streams


@dataclass
class Ran:
    """How a command ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def run(capsys):
    """Run ``deconv`` in process: ``run("score", "a.png", "b.png").json``."""

    def run_command(*arguments: object, stdin: bytes = b"") -> Ran:
        stdout, stderr = BytesIO(), BytesIO()
        text_stderr = TextIOWrapper(stderr, encoding="utf-8", write_through=True)
        code = run_app([str(argument) for argument in arguments], Streams(BytesIO(stdin), stdout, text_stderr))
        captured = capsys.readouterr()  # what Typer itself prints: help and usage errors
        return Ran(int(code), stdout.getvalue() + captured.out.encode(), stderr.getvalue().decode() + captured.err)

    return run_command
