"""What the tests share: the command line in process, and real pictures."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from deconv_cli.cli.app import run as run_app
from deconv_cli.cli.streams import Streams


def pytest_configure():
    # Tests run beside each other, a process for every core: with as many threads each, they would wait for one another.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A file of weights of a tiny random network, three levels deep, that changes a picture visibly."""
    return make_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", "denoise")


@pytest.fixture(scope="session")
def tiny_blind_weights(tmp_path_factory):
    """The same for a task whose network is not told the level."""
    return make_tiny_weights(tmp_path_factory.mktemp("weights") / "blind.safetensors", "decompress")


def make_tiny_weights(path, task):
    import torch

    from deconv_cli.network.description import Architecture, Description
    from deconv_cli.network.encoder_decoder import build_network
    from deconv_cli.network.weights import Weights, save_weights, to_parameters
    from deconv_cli.tasks import find_task

    torch.manual_seed(0)
    planes = find_task(task).condition_planes
    network = build_network(Architecture(widths=(4, 6, 8), blocks=(1, 1, 1), condition_planes=planes))
    description = Description("tiny", task, network.architecture, find_task(task).train_range)
    save_weights(path, Weights(description, to_parameters(network.state_dict())), dtype=np.float32)
    return path


@pytest.fixture
def noisy_folder(tmp_path):
    """A folder of small noisy pictures, one in a folder inside, with the noise in the file."""
    folder = tmp_path / "noisy"
    (folder / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, picture in {
        "cat.png": data.chelsea()[100:164, 100:196],
        "camera.png": data.camera()[200:272, 200:280],
        "inner/cup.png": data.coffee()[100:180, 200:280],
    }.items():
        noisy = np.clip(np.rint(picture + rng.normal(0, 25, picture.shape)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / name)
    return folder
