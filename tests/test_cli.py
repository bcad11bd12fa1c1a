"""The command line as a whole: quick, documented, and telling the truth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import deconv_cli
from deconv_cli.__main__ import main
from deconv_cli.cli.app import build_app
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.tasks import TASKS
from deconv_cli.training.augmentation import CLASSIFICATION, RESTORATION
from deconv_cli.training.config import ClassifyConfig, TrainConfig

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "restore",
    "train",
    "score",
    "degrade",
    "bench",
    "study",
    "classify",
    "compress",
    "export",
    "models list",
    "models show",
    "models verify",
)


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("restore", "--help"), ("train", "--help")])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from deconv_cli.cli.app import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'skimage', 'numpy', 'scipy', 'matplotlib', 'PIL'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    python("-c", code, *arguments)


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "-", "-", "--weights", LONG),
        ("train", LONG),
        ("train", ".", "--init", LONG),
        ("score", ".", ".", "--csv", LONG),
        ("bench", LONG),
        ("study", LONG),
        ("classify", LONG, "--weights", LONG),
        ("export", LONG),
        ("models", "show", LONG),
    ],
)
def test_what_the_system_refuses_is_told_in_a_line(run, arguments):
    """A name that is too long stands for folders that may not be entered, too: the tests may run as root."""
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (1, b"")
    assert ran.stderr == f"error: {LONG}: File name too long\n"


def test_a_folder_that_is_a_link_to_itself_is_told_in_a_line(run, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for arguments in (("restore", ROOT / "docs" / "images", loop), ("train", loop), ("study", loop)):
        ran = run(*arguments)
        assert ran.code in (1, 2)
        assert str(loop) in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


def test_version_and_module_entry():
    assert python("-m", "deconv_cli", "--version").stdout == f"deconv {deconv_cli.__version__}\n"


def test_ctrl_c_while_modules_are_loaded_is_quiet(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("deconv_cli.cli.app.run", interrupt)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("redirection", "shown"), [("<&-", True), ("2>&-", True), (">&-", False), ("<&- >&- 2>&-", False)]
)
def test_closed_streams_are_nothing_to_read_from_or_to_write_to(redirection, shown):
    command = f'exec "$0" -m deconv_cli --version {redirection}'
    shell = ["/bin/sh", "-c", command, sys.executable]
    ran = subprocess.run(shell, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (f"deconv {deconv_cli.__version__}\n" if shown else "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(run, command):
    ran = run(*command.split(), "--help")
    assert ran.code == 0
    reference = (ROOT / "docs" / "cli.md").read_text()
    assert f"`deconv {command}`" in reference
    described = typer.main.get_command(build_app())
    for word in command.split():
        described = described.commands[word]
    for parameter in described.params:
        assert (parameter.help or "").partition("[")[0].strip(), parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_text_whole(command, monkeypatch, capsys):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)
    app = build_app()
    app([*command.split(), "--help"], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.split())
    described = typer.main.get_command(app)
    for word in command.split():
        described = described.commands[word]
    for parameter in described.params:
        assert " ".join((parameter.help or "").split()) in shown


def test_the_reference_is_what_help_says():
    """Made anew with ``python -m typer deconv_cli.cli.manual utils docs --name deconv --output docs/cli.md``."""
    made = python("-m", "typer", "deconv_cli.cli.manual", "utils", "docs", "--name", "deconv").stdout
    assert (ROOT / "docs" / "cli.md").read_text().strip() == made.strip()


def test_help_states_the_default_shapes():
    reference = (ROOT / "docs" / "cli.md").read_text()
    shapes = {"": TrainConfig(), "sr: ": TrainConfig(task="sr"), "classify: ": ClassifyConfig()}
    for field in ("widths", "blocks"):
        stated = "; ".join(name + ",".join(map(str, getattr(config, field))) for name, config in shapes.items())
        assert f"[{stated}]" in reference


def test_help_states_the_ranges_that_are_trained_on():
    reference = (ROOT / "docs" / "cli.md").read_text()
    noise, camera, quality = (
        ":".join(f"{end:g}" for end in TASKS[name].train_range) for name in ("denoise", "photo", "decompress")
    )
    assert f"[{noise}; photo: {camera}]" in reference
    assert f"Range of JPEG quality. [{quality}]" in reference


def test_help_names_every_augmentation():
    (line,) = [line for line in (ROOT / "docs" / "cli.md").read_text().splitlines() if "--augment" in line]
    restoration, classification = line.split("classify:")
    for names, stated in ((RESTORATION, restoration), (CLASSIFICATION, classification)):
        assert not set(names) - set(re.findall(r"\w+", stated))


def test_exit_codes_are_documented_from_themselves():
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} | {code.description} |" in text


def test_unknown_commands_and_options_are_usage_errors(run):
    assert run("restoer").code == 2
    assert run("restore", "--strenght", "1", "a", "b").code == 2


def test_models(run, tmp_path):
    assert "denoise" in run("models", "list").text
    listed = {entry["name"] for entry in run("models", "list", "--json").json}
    assert listed == {path.stem for path in (ROOT / "weights").glob("*.safetensors")}
    card = run("models", "show", "denoise", "--json").json
    assert card["description"]["task"] == "denoise"
    assert card["sha256"]
    assert "parameters" in run("models", "show", "denoise").text
    assert run("models", "show", "denoize").code == 2
    assert run("models", "verify").code == 0
    assert {entry["name"]: entry["error"] for entry in run("models", "verify", "--json").json} == dict.fromkeys(listed)


def test_verify_is_silent_if_asked_to_be_and_nothing_is_wrong(run):
    assert "denoise: as it should be\n" in run("models", "verify").text
    quiet = run("models", "verify", "--quiet")
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, b"", "")


def test_damaged_bundled_weights_are_noticed(run, tmp_path, monkeypatch):
    from deconv_cli.network import bundled

    for name in ("registry.json", "denoise.safetensors"):
        (tmp_path / name).write_bytes((ROOT / "weights" / name).read_bytes())
    data = bytearray((tmp_path / "denoise.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "denoise.safetensors").write_bytes(data)
    monkeypatch.setattr(bundled, "weights_folder", lambda: tmp_path)
    for json in ((), ("--json",)):
        ran = run("models", "verify", *json)
        assert ran.code == 1
        assert "damaged" in ran.stderr
    assert "damaged" in {entry["name"]: entry["error"] for entry in ran.json}["denoise"]


def test_quiet_says_nothing_and_no_colour_without_a_terminal(run, noisy_folder, tmp_path, tiny_weights):
    ran = run(
        "restore", noisy_folder / "cat.png", tmp_path / "o.png", "--weights", tiny_weights, "-q", "--noise-level", 9
    )
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"", "")
    ran = run("restore", tmp_path / "none.png", tmp_path / "p.png", "-q")
    assert ran.stderr.startswith("error: ")
    assert "\x1b" not in ran.stderr


def test_public_names():
    for name in deconv_cli.__all__:
        assert getattr(deconv_cli, name)
    with pytest.raises(AttributeError):
        _ = deconv_cli.nothing


def test_the_man_page_says_what_help_says():
    """Made anew with ``python -m deconv_cli.cli.manual > docs/deconv.1``."""
    from deconv_cli.cli.manual import manual

    page = (ROOT / "docs" / "deconv.1").read_text()
    assert page == manual()
    for command in COMMANDS:
        assert f"deconv {command} [OPTIONS]" in page
    assert ".B \\-\\-files\\-from\\fR FILE|\\-" in page
    for code in ExitCode:
        assert f".B {code.value}\n" in page


@pytest.mark.parametrize(
    ("words", "expected"),
    [("deconv res", "restore"), ("deconv restore --files", "--files-from"), ("deconv models ve", "verify")],
)
def test_shells_complete_commands_and_options(words, expected):
    last = len(words.split()) - 1
    environment = {"_DECONV_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(last)}
    code = "import sys; sys.argv = ['deconv']; from deconv_cli.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=True
    )
    assert expected in done.stdout.split()
