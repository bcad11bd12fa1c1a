"""A batch is a promise: what happens to many files when something goes wrong, and what a script can rely on."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from skimage import data

from deconv_cli.errors import DiskFullError, UsageError
from deconv_cli.images import atomic, encode_frame, open_picture, read_frame, write_frames
from deconv_cli.images.atomic import atomic_file, remove_leftovers
from deconv_cli.images.frame import Frame
from deconv_cli.metrics import psnr
from deconv_cli.network import container
from deconv_cli.restoration import batch as batch_module
from deconv_cli.restoration import memory, planning
from deconv_cli.restoration import sheet as sheet_module
from deconv_cli.restoration.decision import Decision
from deconv_cli.restoration.estimate import Estimate, look_at
from deconv_cli.restoration.pages import Options
from deconv_cli.restoration.restorer import Restorer, Restorers

ROOT = Path(__file__).parents[1]
FAST = ("--noise-level", 20)
KILLS = int(os.environ.get("DECONV_TEST_KILLS", "2"))


@pytest.fixture
def restore(run, tiny_weights):
    def run_restore(*arguments, **streams):
        return run("restore", *arguments, "--weights", tiny_weights, **streams)

    return run_restore


@pytest.fixture
def folder(tmp_path):
    """Eight noisy pictures of different sizes."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(8):
        clean = data.astronaut()[: 40 + 8 * number, 100 : 180 + 4 * number]
        noisy = np.clip(np.rint(clean + rng.normal(0, 20, clean.shape)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
    return folder


def pixels(path):
    return read_frame(path).pixels


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def start(*arguments, **options):
    """Start the command in a process of its own."""
    command = [sys.executable, "-m", "deconv_cli", "restore", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, **(pipes | options))


def test_results_come_in_the_order_of_the_files_however_many_work(restore, folder, tmp_path):
    outputs = []
    for jobs in (1, 4):
        ran = restore(folder, tmp_path / f"out{jobs}", "--jobs", jobs, "--json", *FAST)
        *files, summary = ran.json_lines
        assert [Path(file["input"]).name for file in files] == [f"{number}.png" for number in range(8)]
        assert 0 < summary["network_share"] <= 1
        outputs.append([(tmp_path / f"out{jobs}" / f"{number}.png").read_bytes() for number in range(8)])
    assert outputs[0] == outputs[1]


def test_killed_at_any_moment_it_leaves_no_part_of_a_file_and_resume_does_the_rest(
    restore, folder, tmp_path, tiny_weights
):
    slowly = ("--tile", 8, "--jobs", 1, *FAST)
    assert restore(folder, tmp_path / "expected", *slowly).code == 0
    expected = {number: (tmp_path / "expected" / f"{number}.png").read_bytes() for number in range(8)}
    rng = random.Random(0)
    for kill in range(KILLS):
        out = tmp_path / f"out{kill}"
        process = start(folder, out, "--weights", tiny_weights, *slowly)
        deadline = time.monotonic() + 60
        while len(list(out.glob("*.png"))) <= kill and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had ended before"
        assert len(list(out.glob("*.png"))) < len(expected)
        for path in out.glob("*.png"):
            assert path.read_bytes() == expected[int(path.stem)]
        ran = restore(folder, out, "--resume", *slowly)
        assert ran.code == 0, ran.stderr
        assert {int(path.stem): path.read_bytes() for path in out.glob("*.png")} == expected
        assert not list(out.glob(".*.part"))


def test_ctrl_c_ends_after_the_current_file_with_130(folder, tmp_path, tiny_weights, restore):
    out = tmp_path / "out"
    process = start(folder, out, "--weights", tiny_weights, "--tile", 8, "--jobs", 1, *FAST)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.png")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    done = len(list(out.glob("*.png")))
    assert 1 <= done < 8
    ran = restore(folder, out, "--resume", "--json", "--tile", 8, *FAST)
    assert ran.json_lines[-1]["summary"] == {"complete": done, "restored": 8 - done}


def test_a_reader_that_goes_away_is_no_reason_to_complain(folder, tmp_path, tiny_weights):
    process = start(folder, tmp_path / "out", "--weights", tiny_weights, "--json", "-q", *FAST)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) != 0


def test_a_full_disk_fails_by_name_and_leaves_what_was_there(tmp_path, folder, tiny_weights):
    """Files may have 2000 bytes: as on a full disk, writing fails in the middle of each larger one."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "out"
    out.mkdir()
    (out / "7.png").write_bytes(b"precious")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    process = start(folder, out, "--weights", tiny_weights, "--overwrite", *FAST, preexec_fn=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert f"{out / '7.png'}: cannot be written (File too large)" in stderr.decode()
    assert (out / "7.png").read_bytes() == b"precious"
    assert not list(out.glob(".*.part"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_after_a_full_disk_nothing_more_is_begun_and_resume_does_it(restore, folder, tmp_path, monkeypatch, number):
    out, failed, written = tmp_path / "out", tmp_path / "failed", []

    def fill(descriptor):
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", fill)
        ran = restore(folder, out, "--jobs", 1, "--json", "--failed", failed, *FAST)
    assert ran.code == 1
    *files, summary = ran.json_lines
    assert [Path(file["input"]).name for file in files] == [f"{number}.png" for number in range(8)]
    assert [file["status"] for file in files][:3] == ["restored", "restored", "failed"]
    skipped = [file for file in files if file["status"] == "skipped"]
    assert len(skipped) >= 4
    assert all(
        f"{file['input']}: not begun, since {out / '2.png'}: cannot be written" in file["error"] for file in skipped
    )
    assert summary["summary"]["skipped"] == len(skipped)
    not_done = [file["input"] for file in files if file["status"] in ("failed", "skipped")]
    assert failed.read_text().splitlines() == not_done
    assert (
        f"the disk is full: {len(skipped)} of 8 pictures were not begun; free some space and use --resume" in ran.stderr
    )
    ran = restore(folder, out, "--resume", "--json", *FAST)
    done = 8 - len(not_done)
    assert ran.json_lines[-1]["summary"] == {"complete": done, "restored": len(not_done)}


def test_of_a_document_that_cannot_be_written_no_more_pages_are_restored(restore, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "in.tif", rng.integers(0, 256, (20, 48, 48), np.uint8), photometric="minisblack")
    restored, restore_page = [], batch_module.restore_page

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic._Unnumbered, "write", full)
    monkeypatch.setattr(batch_module, "restore_page", lambda *page: restored.append(page) or restore_page(*page))
    ran = restore(tmp_path / "in.tif", tmp_path / "out.tif", *FAST)
    assert ran.code == 1
    assert "cannot be written (No space left on device)" in ran.stderr
    assert len(restored) < 10


@pytest.mark.parametrize(("available", "most"), [(2, 0), (100, 2)])
def test_what_memory_has_no_room_for_is_not_decoded_ahead(restore, folder, tmp_path, monkeypatch, available, most):
    decoded, ahead = [], []
    decide_page, restore_page = batch_module.decide_page, batch_module.restore_page

    def restore_slowly(*page):
        deadline = time.monotonic() + 5
        while max(ahead, default=0) < most > len(decoded) - len(ahead) - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # One too many would come now.
        ahead.append(len(decoded) - len(ahead) - 1)
        return restore_page(*page)

    monkeypatch.setattr(batch_module, "available_memory", lambda: available)
    monkeypatch.setattr(memory, "picture_bytes", lambda *_: 1)
    monkeypatch.setattr(batch_module, "decide_page", lambda *page: decoded.append(page) or decide_page(*page))
    monkeypatch.setattr(batch_module, "restore_page", restore_slowly)
    assert restore(folder, tmp_path / "out", *FAST).code == 0
    assert max(ahead) == most


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "tiff", "gif", "avif", "jp2"])
def test_writing_notices_a_full_disk_in_every_format(kind, tmp_path, monkeypatch):
    """Pillow and NumPy write to a file's descriptor where they can, and then do not say that the disk is full."""
    original = io.FileIO
    monkeypatch.setattr(atomic.io, "FileIO", lambda path, mode: original("/dev/full", "r+"))
    frame = Frame(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8), lossless=kind != "avif")
    with pytest.raises(DiskFullError, match="No space left"), atomic_file(tmp_path / "out") as file:
        write_frames(file, [frame], kind)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_behind_stdout_is_said_in_one_line(folder, tiny_weights):
    with Path("/dev/full").open("wb") as full:
        process = start(folder / "0.png", "-", "--weights", tiny_weights, *FAST, stdout=full)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr == b"error: standard output: cannot be written (No space left on device)\n"


def test_a_read_only_folder_is_refused_before_any_work(restore, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(batch_module, "restore_page", lambda *_: pytest.fail("it worked"))
    ran = restore(folder, tmp_path / "out", *FAST)
    assert ran.code == 1
    assert f"error: {tmp_path / 'out'}: the output folder is read-only" in ran.stderr


def test_an_unreadable_folder_fails_alone(restore, noisy_folder, tmp_path, monkeypatch):
    iterdir = Path.iterdir

    def forbid(self):
        if self.name == "inner":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", forbid)
    ran = restore(noisy_folder, tmp_path / "out", "--recursive", "--json", *FAST)
    assert ran.code == 1
    assert f"{noisy_folder / 'inner'}: the folder cannot be read (Permission denied)" in ran.stderr
    assert ran.json_lines[-1]["summary"] == {"restored": 2, "failed": 1}


def test_a_link_that_leads_where_nobody_may_look_does_not_stop_the_rest(folder, tmp_path, monkeypatch):
    (folder / "link.png").symlink_to("/forbidden/picture.png")
    look = os.stat

    def refuse(path, *arguments, **options):
        if str(path).startswith(str(folder / "link")):
            raise PermissionError(13, "Permission denied")
        return look(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    out = tmp_path / "out"
    assert len(planning.plan([folder], out)) == 8
    (job,) = planning.plan([folder / "link.png"], tmp_path / "out.png")
    assert job.target == tmp_path / "out.png"
    planning.plan([folder / "0.png"], folder / "link.gif")
    planning.refuse_existing([folder / "link.png"])


def test_results_that_links_would_put_into_one_file_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "0.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(planning.plan([folder], out)) == 8
    (out / "1.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UsageError, match="several inputs would become one output"):
        planning.plan([folder], out)
    (out / "1.png").unlink()
    (out / "1.png").symlink_to(folder / "5.png")
    with pytest.raises(UsageError, match="would overwrite an input"):
        planning.plan([folder], out)


def test_a_vanished_input_fails_alone(restore, folder, tmp_path, monkeypatch):
    restore_page = batch_module.restore_page

    def take_away(*arguments):
        (folder / "6.png").unlink(missing_ok=True)
        return restore_page(*arguments)

    monkeypatch.setattr(batch_module, "restore_page", take_away)
    ran = restore(folder, tmp_path / "out", "--jobs", 1, "--json", *FAST)
    assert ran.code == 1
    assert f"{folder / '6.png'}: no such file" in ran.stderr
    assert ran.json_lines[-1]["summary"] == {"restored": 7, "failed": 1}


def test_hostile_files_fail_alone_and_are_listed(restore, folder, tmp_path):
    good = (folder / "0.png").read_bytes()
    hostile = {
        "empty.png": b"",
        "cut.png": good[: len(good) // 2],
        "text.jpg": b"this is no picture",
        "bomb.png": good[:16] + (200_000).to_bytes(4) * 2 + good[24:],
        "late.tif": tifffile_bytes()[:-50],
    }
    for name, content in hostile.items():
        (folder / name).write_bytes(content)
    (folder / "mislabelled.jpg").write_bytes(good)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    failed = tmp_path / "failed.txt"
    ran = restore(folder, folder / "missing.png", tmp_path / "out", "--failed", failed, "--json", *FAST)
    assert ran.code == 1
    expected = {*hostile, "missing.png"}
    assert {Path(line).name for line in failed.read_text().splitlines()} == expected
    *files, summary = ran.json_lines
    assert {Path(file["input"]).name for file in files if file["status"] == "failed"} == expected
    for file in files:
        assert (file["error"] is None) == (file["status"] != "failed")
        assert file["error"] is None or file["input"] in file["error"]
    assert summary["summary"] == {"failed": len(expected), "restored": 9}
    assert ran.stderr.rstrip().splitlines()[-1].strip() == str(folder / "missing.png")
    with Image.open(tmp_path / "out" / "mislabelled.jpg") as image:
        assert image.format == "PNG"
    again = restore("--files-from", failed, tmp_path / "again", *FAST)
    assert again.code == 1


def test_premultiplied_samples_that_overflow_fail_alone(restore, folder, tmp_path):
    samples = np.random.default_rng(0).random((40, 40, 4), np.float32)
    samples[5:9, 5:9] = 1e10, 1e10, 1e10, 1e-30
    tifffile.imwrite(folder / "overflows.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    ran = restore(folder, tmp_path / "out", "--json", *FAST)
    assert ran.code == 1, ran.stderr
    assert f"{folder / 'overflows.tif'}: holds values that are not finite" in ran.stderr
    assert ran.json_lines[-1]["summary"] == {"restored": 8, "failed": 1}


def tifffile_bytes():
    file = io.BytesIO()
    tifffile.imwrite(file, data.astronaut()[:32, :32], photometric="rgb")
    return file.getvalue()


def test_a_name_cannot_reach_out_of_the_output_folder(restore, folder, tmp_path):
    ran = restore(folder / "0.png", tmp_path / "out", "--suffix", "/../../evil", *FAST)
    assert ran.code == 2
    assert "--suffix" in ran.stderr
    odd = folder / "sub"
    odd.mkdir()
    (folder / "1.png").rename(odd / "..png")
    listed = tmp_path / "list"
    listed.write_text(f"{folder}/../in/0.png\n{odd}/../2.png\n")
    assert restore("--files-from", listed, tmp_path / "out", *FAST).code == 0
    assert names(tmp_path / "out") == [".deconv.jsonl", "0.png", "2.png"]


def test_names_may_hold_anything(restore, folder, tmp_path):
    nasty = ["\x1b[31mred\n.png", "Gemälde – 写真.png", " .png", "-rf.png", "x" * 240 + ".png"]
    for name in nasty:
        os.link(folder / "0.png", folder / name)
    bad = os.fsdecode(b"bytes-\xff.png")
    os.link(folder / "0.png", folder / bad)
    (folder / "\x1b[2Jbroken.png").write_bytes(b"no")
    deep = folder.joinpath(*["d" * 100] * 15)
    deep.mkdir(parents=True)
    os.link(folder / "0.png", deep / "deep.png")
    failed = tmp_path / "failed"
    ran = restore(folder, tmp_path / "out", "--recursive", "--failed", failed, "--null", "--json", *FAST)
    assert ran.code == 1
    assert "\x1b" not in ran.stderr
    for name in (*nasty, bad):
        assert (tmp_path / "out" / name).exists()
    assert (tmp_path / "out" / deep.relative_to(folder) / "deep.png").exists()
    assert {Path(line["input"]).name for line in ran.json_lines[:-1]} >= {*nasty, bad}
    assert failed.read_bytes() == os.fsencode(folder / "\x1b[2Jbroken.png") + b"\0"
    text = restore(folder / bad, tmp_path / "one", "--dry-run")
    assert os.fsencode(bad) in text.stdout


def test_lists_of_files_keep_their_tree(restore, noisy_folder, tmp_path):
    paths = [noisy_folder / "cat.png", noisy_folder / "inner" / "cup.png"]
    null = b"".join(os.fsencode(path) + b"\0" for path in paths)
    ran = restore("--files-from", "-", "--null", tmp_path / "out", *FAST, stdin=null)
    assert ran.code == 0, ran.stderr
    assert names(tmp_path / "out") == [".deconv.jsonl", "cat.png", "inner/cup.png"]
    lines = tmp_path / "list.txt"
    lines.write_text("\n".join(map(str, paths)))
    assert restore("--files-from", lines, tmp_path / "two", *FAST).code == 0
    assert names(tmp_path / "two") == names(tmp_path / "out")
    assert restore("--files-from", tmp_path / "none", tmp_path / "three", *FAST).code == 2
    empty = restore("--files-from", "-", tmp_path / "three", stdin=b"")
    assert (empty.code, "in the list" in empty.stderr) == (3, True)


def test_shards_share_the_work_and_the_record(restore, folder, tmp_path):
    out = tmp_path / "out"
    for index in (1, 2, 3):
        assert restore(folder, out, "--shard", f"{index}/3", *FAST).code == 0
    assert len(list(out.glob("*.png"))) == 8
    ran = restore(folder, out, "--resume", "--json", *FAST)
    assert ran.json_lines[-1]["summary"] == {"complete": 8}
    for wrong in ("0/3", "4/3", "1", "a/b"):
        assert restore(folder, out, "--shard", wrong).code == 2


def test_times_and_permissions(restore, folder, tmp_path):
    source = folder / "0.png"
    source.chmod(0o640)
    os.utime(source, (10**9, 10**9))
    assert restore(source, tmp_path / "a.png", "--preserve-times", *FAST).code == 0
    assert restore(source, tmp_path / "b.png", *FAST).code == 0
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (tmp_path / "a.png").stat().st_mtime == 10**9
    assert (tmp_path / "b.png").stat().st_mtime > 10**9


def test_a_record_that_was_cut_does_not_swallow_the_next_entry(restore, folder, tmp_path):
    out = tmp_path / "out"
    assert restore(folder / "0.png", out, *FAST).code == 0
    with (out / ".deconv.jsonl").open("a") as record:
        record.write('{"output": "1.p')
    assert restore(folder / "1.png", folder / "0.png", out, "--resume", *FAST).code == 0
    ran = restore(folder / "0.png", folder / "1.png", out, "--resume", "--json", *FAST)
    assert ran.json_lines[-1]["summary"] == {"complete": 2}


def test_a_record_that_cannot_be_read_is_told_in_a_line(restore, folder, tmp_path):
    (tmp_path / "out" / ".deconv.jsonl").mkdir(parents=True)
    ran = restore(folder, tmp_path / "out", "--resume", *FAST)
    assert ran.code == 1
    record = tmp_path / "out" / ".deconv.jsonl"
    assert ran.stderr == f"error: {record}, the record to resume from: cannot be read (Is a directory)\n"


def test_lists_of_names_that_make_no_sense_are_refused(restore, folder, tmp_path, monkeypatch):
    names = tmp_path / "names"
    names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in folder.iterdir()))
    ran = restore("--files-from", names, tmp_path / "out")
    assert (ran.code, ran.stderr) == (2, f"error: {names}: the names in it end in NUL bytes; add --null\n")

    def on_two_drives(_paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", on_two_drives)
    ran = restore("--files-from", names, "--null", tmp_path / "out")
    assert ran.code == 2
    assert "no folder in common" in ran.stderr


def test_a_byte_order_mark_is_no_part_of_a_name(restore, folder, tmp_path):
    (tmp_path / "names").write_text(f"{folder / '0.png'}\n", encoding="utf-8-sig")
    assert restore("--files-from", tmp_path / "names", tmp_path / "out", *FAST).code == 0


def test_results_among_the_inputs_are_no_inputs_the_next_time(restore, folder):
    command = (folder, folder, "--suffix", "-clean", "--compare", folder / "sheet.png", "--json", *FAST)
    expected = sorted(names(folder) + [f"{number}-clean.png" for number in range(8)] + ["sheet.png", ".deconv.jsonl"])
    for how, status in (((), "restored"), (("--resume",), "complete"), (("--overwrite",), "restored")):
        ran = restore(*command, *how)
        assert ran.code == 0, ran.stderr
        assert ran.json_lines[-1]["summary"] == {status: 8}
        assert names(folder) == expected
    # What is named is an input, and so is what somebody has changed since.
    assert restore(folder / "0-clean.png", folder / "again", "--resume", *FAST).code == 0
    (folder / "0-clean.png").write_bytes((folder / "0.png").read_bytes())
    ran = restore(*command, "--overwrite")
    assert ran.code == 2
    assert "would overwrite an input" in ran.stderr


def test_inputs_without_an_output_are_told_so(restore, run, folder):
    for command in ((restore,), (run, "degrade", "--scale", 2)):
        ran = command[0](*command[1:], *sorted(folder.iterdir()))
        assert ran.code == 2
        assert (
            ran.stderr
            == f"error: {folder / '7.png'}: is a file; the last argument is OUTPUT, and must be a folder here\n"
        )


def test_a_second_mount_of_the_output_folder_is_left_out_of_the_scan(restore, folder, tmp_path, monkeypatch):
    """A link stands for the mount, since nothing resolves it here."""
    out = folder / "out"
    assert restore(folder, out, "--recursive", *FAST).code == 0
    mount = tmp_path / "mount"
    mount.symlink_to(out)
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    monkeypatch.setattr(Path, "resolve", Path.absolute)
    ran = restore(folder, mount, "--recursive", "--overwrite", "--json", *FAST)
    assert ran.json_lines[-1]["summary"] == {"restored": 8}


def test_an_output_made_otherwise_is_neither_taken_for_current_nor_replaced(restore, folder, tmp_path):
    out, source = tmp_path / "out", folder / "0.png"
    out.mkdir()
    (out / "0.png").write_bytes(source.read_bytes())
    for _ in range(2):
        ran = restore(source, out, "--resume", *FAST)
        assert ran.code == 2
        assert f"already there: {out / '0.png'}" in ran.stderr
        assert "--overwrite" in ran.stderr
        assert (out / "0.png").read_bytes() == source.read_bytes()
        assert restore(source, out, "--resume", "--dry-run", *FAST).code == 2
    assert restore(source, out, "--resume", "--overwrite", "--json", *FAST).json_lines[0]["status"] == "restored"
    assert restore(source, out, "--resume", "--json", *FAST).json_lines[0]["status"] == "complete"
    (out / "0.png").write_bytes(b"retouched")
    os.utime(out / "0.png", ns=(0, time.time_ns() + 10**9))
    assert restore(source, out, "--resume", *FAST).code == 2
    assert (out / "0.png").read_bytes() == b"retouched"


def test_another_precision_is_another_result(restore, folder, tmp_path):
    def resumed(*options):
        return restore(folder / "0.png", tmp_path / "out", "--resume", "--json", *options, *FAST).json_lines[0][
            "status"
        ]

    for options in ((), ("--precision", "bf16"), ("--precision", "fp32")):
        assert resumed(*options) == "restored"
        assert resumed(*options) == "complete"


def test_resume_replaces_neither_an_original_put_back_nor_what_came_after_a_failure(restore, folder, tmp_path):
    out, source = tmp_path / "out", folder / "0.png"
    assert restore(source, out, *FAST).code == 0
    shutil.copy2(source, out / "0.png")  # as old as ever
    os.utime(out / "0.png", (1, 1))
    assert restore(source, out, "--resume", *FAST).code == 2
    assert (out / "0.png").read_bytes() == source.read_bytes()
    assert restore(folder / "1.png", out, "--crop", "9000,9000,40,40", *FAST).code == 1
    shutil.copy2(source, out / "1.png")
    assert restore(folder / "1.png", out, "--resume", *FAST).code == 2


def test_what_fails_when_it_is_done_again_may_still_be_replaced(restore, folder, tmp_path):
    out, source = tmp_path / "out", folder / "0.png"
    assert restore(source, out, *FAST).code == 0
    assert restore(source, out, "--resume", "--crop", "9000,9000,40,40", *FAST).code == 1
    ran = restore(source, out, "--resume", "--strength", 0.5, "--json", *FAST)
    assert ran.json_lines[0]["status"] == "restored"


def test_a_copied_folder_is_as_complete_as_before(restore, folder, tmp_path):
    assert restore(folder, tmp_path / "out", *FAST).code == 0
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    ran = restore(folder, tmp_path / "copy", "--resume", "--json", *FAST)
    assert ran.json_lines[-1]["summary"] == {"complete": 8}


def test_a_dry_run_knows_what_is_complete(restore, folder, tmp_path):
    assert restore(folder / "0.png", folder / "1.png", tmp_path / "out", *FAST).code == 0
    ran = restore(folder, tmp_path / "out", "--resume", "--dry-run", "--json", *FAST)
    assert ran.json_lines[-1]["summary"] == {"complete": 2, "planned": 6}


def test_a_sheet_is_as_wide_as_its_pictures_whatever_the_captions(restore, tmp_path):
    name = "a name that is longer than the picture that it belongs to is wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 300, 3), np.uint8)).save(tmp_path / name)
    restore(tmp_path / name, tmp_path / "out.png", "--compare", tmp_path / "sheet.png", *FAST)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.shape[1] == 2 * 300 + 3 * 8
    first, second, between = pixels[8:26, 8:308], pixels[26:44, 8:308], pixels[:, 308:316]
    assert max(first.min(), second.min()) < 99
    assert between.min() == 255


@pytest.mark.parametrize("kind", ["tif", "gif"])
def test_a_sheet_numbers_the_pages_of_a_file(restore, tmp_path, kind):
    pages = [Image.fromarray(data.camera()[:60, at : at + 400]) for at in (0, 1)]
    pages[0].save(tmp_path / f"in.{kind}", save_all=True, append_images=pages[1:], duration=100)
    pages[0].save(tmp_path / "alone.png")
    inputs = (tmp_path / f"in.{kind}", tmp_path / "alone.png")
    ran = restore(*inputs, tmp_path / "out", "--compare", tmp_path / "sheet.png", *FAST)
    assert ran.code == 0, ran.stderr
    sheet = pixels(tmp_path / "sheet.png")[..., 0]
    rows = [sheet[8 + at * (18 + 4 + 60 + 8) :][:18, : 8 + 400] for at in range(3)]
    assert all(row.min() < 99 for row in rows)
    assert len({row.tobytes() for row in rows}) == 3


def test_a_sheet_shows_floats_beyond_1_by_their_range(restore, tmp_path):
    tifffile.imwrite(tmp_path / "map.tif", data.camera()[:64, :80].astype(np.float32) * 40)
    restore(tmp_path / "map.tif", tmp_path / "out.tif", "--compare", tmp_path / "sheet.png", "--strength", 0, *FAST)
    shown = pixels(tmp_path / "sheet.png")[-72:-8]
    for left in (8, 8 + 240 + 8):
        np.testing.assert_allclose(shown[:, left : left + 80, 0], data.camera()[:64, :80] * (255 * 40 / 16384), atol=1)


@pytest.mark.parametrize("option", ["--compare", "--failed"])
def test_a_sheet_or_list_replaces_only_what_an_earlier_run_wrote(restore, folder, tmp_path, option):
    out, beside = tmp_path / "out", tmp_path / "beside.png"
    command = (folder, out, option, beside, *FAST)
    beside.write_bytes(b"of the user")
    for how in ((), ("--resume",), ("--resume", "--dry-run")):
        ran = restore(*command, *how)
        assert (ran.code, beside.read_bytes()) == (2, b"of the user")
        assert f"already there: {beside}" in ran.stderr
    assert not out.exists()
    assert restore(*command, "--overwrite").code == 0
    (folder / "0.png").touch()
    assert restore(*command, "--resume").code == 0
    assert beside.read_bytes() != b"of the user"
    beside.write_bytes(b"of the user")
    os.utime(beside, ns=(0, time.time_ns() + 10**9))
    assert restore(*command, "--resume").code == 2
    assert beside.read_bytes() == b"of the user"


def test_a_list_of_failures_may_go_into_a_pipe(restore, folder, tmp_path):
    assert restore(folder, tmp_path / "out", "--failed", "/dev/null", *FAST).code == 0
    assert restore(folder, tmp_path / "out", "--failed", "/dev/null", "--resume", *FAST).code == 0


def test_a_sheet_that_cannot_be_written_is_refused_or_costs_nothing_else(restore, folder, tmp_path, monkeypatch):
    (folder / "broken.png").write_bytes(b"broken")
    out, failed, sheet = tmp_path / "out", tmp_path / "new" / "failed.txt", tmp_path / "sheet.png"
    command = (folder, out, "--failed", failed, "--compare", sheet, *FAST)
    sheet.mkdir()
    ran = restore(*command, "--overwrite")
    assert (ran.code, out.exists()) == (2, False)
    assert f"--compare {sheet}: it is a folder" in ran.stderr
    ran = restore(folder, out, "--compare", folder / "0.png" / "sheet.png", *FAST)
    assert ran.code == 1
    assert not list(out.glob("*.png"))
    sheet.rmdir()
    monkeypatch.setattr(sheet_module.ComparisonSheet, "write", full)
    ran = restore(*command, "--json")
    assert ran.code == 1
    assert failed.read_text() == f"{folder / 'broken.png'}\n"
    assert f"{sheet}: cannot be written" in ran.stderr
    assert ran.json_lines[-1]["summary"] == {"restored": 8, "failed": 1}


def full(_sheet, path):
    raise DiskFullError(f"{path}: cannot be written (No space left on device)")


@pytest.mark.parametrize("option", ["--compare", "--failed"])
def test_what_is_written_beside_takes_no_pictures_place(restore, folder, tmp_path, option):
    source, out = folder / "0.png", tmp_path / "out.png"
    before = source.read_bytes()
    for path in (source, out):
        ran = restore(source, out, option, path, "--overwrite", *FAST)
        assert ran.code == 2
        assert f"{option} {path}" in ran.stderr
    assert source.read_bytes() == before
    assert not out.exists()


def test_only_the_dead_leave_leftovers(tmp_path):
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
        part = next(tmp_path.glob(".*.part"))
        remove_leftovers(tmp_path)
        assert part.exists()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        dead = part.with_name(part.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
        dead.write_bytes(b"left")
        remove_leftovers(tmp_path)
        assert not dead.exists()
    assert names(tmp_path) == ["a"]


def pages_tiff(path, count=3):
    with tifffile.TiffWriter(path) as writer:
        for number in range(count):
            page = data.camera()[60 + number : 124 + number, 100:180].astype(np.uint16) * 257 + number
            noisy = np.clip(page + np.random.default_rng(number).normal(0, 5000, page.shape), 0, 65535)
            writer.write(noisy.astype(np.uint16), description=f"page {number}", metadata=None, compression="lzw")


def test_every_page_is_restored(restore, tmp_path):
    pages_tiff(tmp_path / "scan.tif")
    ran = restore(tmp_path / "scan.tif", tmp_path / "out.tif", "--json", *FAST)
    outcome = ran.json_lines[0]
    assert (outcome["status"], outcome["pages"], outcome["width"], outcome["height"]) == ("restored", 3, 80, 64)
    with tifffile.TiffFile(tmp_path / "out.tif") as after, tifffile.TiffFile(tmp_path / "scan.tif") as before:
        for number, (page, old) in enumerate(zip(after.pages, before.pages, strict=True)):
            assert page.description == f"page {number}"
            assert page.dtype == np.uint16
            assert not np.array_equal(page.asarray(), old.asarray())
    ran = restore(tmp_path / "scan.tif", tmp_path / "out.png", *FAST)
    assert ran.code == 1
    assert "holds 3 pages, which PNG cannot; choose tiff" in ran.stderr


def test_pages_that_need_nothing_stay_and_a_document_of_such_is_copied(run, tmp_path):
    clean = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    for name, pages in {"clean.tif": [clean, clean], "mixed.tif": [clean, noisy, clean]}.items():
        with tifffile.TiffWriter(tmp_path / name) as writer:
            for page in pages:
                writer.write(page, metadata=None)
    ran = run("restore", tmp_path / "clean.tif", tmp_path / "mixed.tif", tmp_path / "out", "--json")
    assert [line["status"] for line in ran.json_lines[:-1]] == ["copied", "restored"]
    assert (tmp_path / "out" / "clean.tif").read_bytes() == (tmp_path / "clean.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "out" / "mixed.tif") as result:
        after = [page.asarray() for page in result.pages]
    assert np.array_equal(after[0], clean)
    assert not np.array_equal(after[1], noisy)
    assert np.array_equal(after[2], clean)


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp")])
def test_animations_are_restored_frame_by_frame(restore, tmp_path, kind, suffix):
    rng = np.random.default_rng(0)
    frames = [
        Image.fromarray(
            np.clip(data.coffee()[:40, 9 * n : 60 + 9 * n] + rng.normal(0, 20, (40, 60, 3)), 0, 255).astype(np.uint8)
        )
        for n in range(3)
    ]
    path = tmp_path / f"film.{suffix}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=[50, 60, 70], loop=0)
    ran = restore(path, tmp_path / f"out.{suffix}", "--json", *FAST)
    assert ran.code == 0, ran.stderr
    assert ran.json_lines[0]["pages"] == 3
    with open_picture(tmp_path / f"out.{suffix}") as picture:
        assert [frame.duration for frame in picture.frames] == [50, 60, 70]


def test_low_bits_of_16_survive(restore, tmp_path):
    """A gradient so slow that 8 bits would make steps of it."""
    ramp = np.linspace(20000, 21500, 96 * 128).astype(np.uint16).reshape(96, 128)
    tifffile.imwrite(tmp_path / "ramp.tif", np.dstack([ramp] * 3), photometric="rgb")
    for target, strength in (("same.tif", 0), ("weak.png", 0.9)):
        assert restore(tmp_path / "ramp.tif", tmp_path / target, "--strength", strength, "--noise-level", 1).code == 0
        result = pixels(tmp_path / target)
        assert result.dtype == np.uint16
        assert len(np.unique(result)) > 1000
        if strength == 0:
            assert np.array_equal(result, np.dstack([ramp] * 3))


def test_float_measurements_keep_their_range(run, tmp_path):
    field = (data.camera()[:64, :80].astype(np.float32) - 20) * 13.7
    tifffile.imwrite(tmp_path / "map.tif", field)
    forced = "--task", "denoise", "--noise-level", 5
    assert run("restore", tmp_path / "map.tif", tmp_path / "out.tif", *forced).code == 0
    result = pixels(tmp_path / "out.tif")
    assert result.dtype == np.float32
    assert abs(result.mean() - field.mean()) < 0.01 * field.mean()
    assert np.abs(result - field).max() > 1
    assert run("restore", tmp_path / "map.tif", tmp_path / "same.tif", "--strength", 0, *forced).code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "same.tif"), field)


def test_cmyk_stays_cmyk_with_all_its_plates(restore, tmp_path):
    y, x = np.mgrid[:64, :80]
    inks = np.stack([3 * x, 2 * y, x + y, 255 - 3 * x], -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated", iccprofile=b"inks" * 40)
    assert restore(tmp_path / "in.tif", tmp_path / "same.tif", "--strength", 0, *FAST).code == 0
    assert restore(tmp_path / "in.tif", tmp_path / "out.tif", *FAST).code == 0
    with tifffile.TiffFile(tmp_path / "same.tif") as same, tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert np.array_equal(same.asarray(), inks)
        assert out.pages[0].photometric.name == "SEPARATED"
        assert all((out.asarray()[..., plate] != inks[..., plate]).any() for plate in range(4))


@pytest.mark.parametrize("told", [(), ("--task", "denoise")])
def test_noise_in_black_ink_alone_is_found_and_removed(run, tmp_path, told):
    """As of a gray scan that was turned into CMYK; what has no noise is left nearly as it is."""
    black = data.camera()[100:260, 100:260]
    noisy = np.clip(black + np.random.default_rng(0).normal(0, 20, black.shape), 0, 255).astype(np.uint8)
    inks = np.dstack([np.full((160, 160, 3), 10, np.uint8), 255 - noisy])
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated")
    ran = run("restore", tmp_path / "in.tif", tmp_path / "out.tif", *told, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json_lines[0]["noise_level"] == pytest.approx(20, abs=2)
    result = tifffile.imread(tmp_path / "out.tif")
    assert psnr(black, 255 - result[..., 3]) > psnr(black, noisy) + 5
    assert np.abs(result[..., :3].astype(int) - 10).max() <= 1


def test_the_plates_of_cmyk_are_restored_by_the_noise_of_each(run, tmp_path):
    clean = data.astronaut()[100:260, 100:260]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    black = data.camera()[100:260, 100:260]
    tifffile.imwrite(tmp_path / "in.tif", 255 - np.dstack([noisy, black]), photometric="separated")
    assert run("restore", tmp_path / "in.tif", tmp_path / "out.tif", "--task", "denoise").code == 0
    result = 255 - tifffile.imread(tmp_path / "out.tif")
    assert psnr(clean, result[..., :3]) > psnr(clean, noisy) + 5
    assert psnr(black, result[..., 3]) > 40


def test_colours_under_transparency_do_not_bleed_into_the_edge(run, tmp_path):
    """A green disc on transparent magenta: no magenta may come into its edge, and the rest stays as it was."""
    y, x = np.mgrid[:64, :64]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 20**2
    colour = np.where(inside[..., None], [40, 200, 60], [255, 0, 255]).astype(np.uint8)
    alpha = np.where(inside, 255, 0).astype(np.uint8)
    (tmp_path / "in.png").write_bytes(encode_frame(Frame(colour, alpha), "png")[0])
    ran = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--task", "denoise", "--noise-level", 30)
    assert ran.code == 0, ran.stderr
    result = read_frame(tmp_path / "out.png")
    assert np.array_equal(result.alpha, alpha)
    assert np.abs(result.pixels[inside].astype(int) - [40, 200, 60]).max() <= 8
    assert np.array_equal(result.pixels[~inside], colour[~inside])


@pytest.mark.parametrize(
    ("command", "options", "kept"),
    [
        ("restore", ("--task", "denoise", "--noise-level", 20), True),
        ("restore", ("--task", "denoise", "--noise-level", 20, "--crop", "8,8,32,32"), False),
        ("restore", ("--crop", "8,8,32,32"), False),
        ("restore", ("--scale", 2), False),
        ("degrade", ("--scale", 2), False),
    ],
)
def test_tags_that_place_a_picture_on_a_map_go_with_the_pixels(run, tmp_path, command, options, kept):
    flat, tag = np.full((64, 64, 3), 128, np.uint8), (33550, 12, 3, (1.5, 2.5, 0.0), True)
    tifffile.imwrite(tmp_path / "in.tif", flat, photometric="rgb", metadata=None, extratags=[tag])
    ran = run(command, tmp_path / "in.tif", tmp_path / "out.tif", *options)
    assert ran.code == 0, ran.stderr
    assert (33550 in [tag[0] for tag in read_frame(tmp_path / "out.tif").tags]) is kept
    assert ("place the picture on a map were dropped" in ran.stderr) is not kept


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--noise-level", 20), '{"shape": [2, 1, 32, 48], "axes": "TZYX", "day": 3}'),
        (("--scale", 2), '{"axes": "TZYX", "day": 3}'),
        (("--noise-level", 20, "--crop", "8,8,16,24"), '{"axes": "TZYX", "day": 3}'),
    ],
)
def test_a_shape_that_tifffile_noted_is_not_told_of_pages_of_another(run, tmp_path, caplog, options, note):
    stack, own = np.full((2, 1, 32, 48), 128, np.uint8), {"axes": "TZYX", "day": 3}
    tifffile.imwrite(tmp_path / "in.tif", stack, photometric="minisblack", metadata=own)
    assert run("restore", tmp_path / "in.tif", tmp_path / "out.tif", *options).code == 0
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.pages[0].description == note
        assert out.asarray().size == 2 * out.pages[0].size
    assert "does not match" not in caplog.text


@pytest.mark.parametrize("kind", ["png", "jpg", "tiff"])
def test_an_enlarged_scan_is_as_large_on_paper_as_before(run, tmp_path, kind):
    tags = Image.Exif()
    tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = 300.0, 150.0
    xmp = "<x:xmpmeta><rdf:Description tiff:XResolution='%s/10' tiff:YResolution='1500/10'/></x:xmpmeta>"
    exif, packet = b"Exif\0\0" + tags.tobytes().removeprefix(b"Exif\0\0"), (xmp % "3000").encode()
    frame = Frame(np.full((64, 48, 3), 128, np.uint8), dpi=(300.0, 150.0), exif=exif, xmp=packet)
    (tmp_path / f"in.{kind}").write_bytes(encode_frame(frame, kind)[0])
    for options, times in (("--scale", 2), 2), (("--noise-level", 10), 1), (("--scale", 3, "--crop", "8,8,16,16"), 3):
        ran = run("restore", tmp_path / f"in.{kind}", tmp_path / f"out.{kind}", *options, "--overwrite")
        assert ran.code == 0, ran.stderr
        result = read_frame(tmp_path / f"out.{kind}")
        assert result.dpi == pytest.approx((300 * times, 150 * times), rel=1e-3)
        assert f"tiff:XResolution='{3000 * times}/10' tiff:YResolution='{1500 * times}/10'".encode() in result.xmp
        if kind != "tiff":  # Which has tags of its own for it.
            again = Image.Exif()
            again.load(result.exif)
            assert [again[tag] for tag in (282, 283)] == [300 * times, 150 * times]


def test_a_resolution_that_no_file_holds_any_more_is_left_out_with_a_warning(run, tmp_path):
    frame = Frame(np.full((32, 32, 3), 128, np.uint8), dpi=(40000.0, 40000.0))
    (tmp_path / "in.tif").write_bytes(encode_frame(frame, "tiff")[0])
    ran = run("restore", tmp_path / "in.tif", tmp_path / "out.tif", "--scale", 2)
    assert ran.code == 0, ran.stderr
    assert "the resolution was left out" in ran.stderr
    assert read_frame(tmp_path / "out.tif").dpi is None


@pytest.mark.parametrize("command", ["restore", "degrade"])
def test_transparency_in_float_keeps_to_its_range(run, tmp_path, command):
    picture = np.full((64, 64, 4), 0.5, np.float32)
    picture[..., 3] = 0
    picture[20:40, 20:40, 3] = 1
    tifffile.imwrite(tmp_path / "in.tif", picture, photometric="rgb", extrasamples=["unassalpha"])
    assert run(command, tmp_path / "in.tif", tmp_path / "out.tif", "--scale", 2).code == 0
    alpha = read_frame(tmp_path / "out.tif").alpha
    assert (alpha.min(), alpha.max()) == (0, 1)


def framed(picture, below):
    """Encode a picture within a transparent frame 48 pixels wide, with such values below that."""
    colour = np.broadcast_to(below, (256, 256, 3)).astype(np.uint8)
    alpha = np.zeros((256, 256), np.uint8)
    colour[48:208, 48:208], alpha[48:208, 48:208] = picture, 255
    return encode_frame(Frame(colour, alpha), "png")[0]


@pytest.mark.parametrize("told", [(), ("--task", "denoise")])
def test_what_is_transparent_says_nothing_of_the_noise(run, tmp_path, told):
    clean = data.astronaut()[100:260, 100:260]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    gradient = np.add.outer(np.arange(256), np.arange(256))[..., None] // 4
    (tmp_path / "in.png").write_bytes(framed(noisy, gradient))
    (line, _) = run("restore", tmp_path / "in.png", tmp_path / "out.png", *told, "--json").json_lines
    assert line["noise_level"] == pytest.approx(20, abs=1.5)


def test_the_edge_of_what_is_transparent_is_no_block_of_jpeg(run, tmp_path):
    (tmp_path / "in.png").write_bytes(framed(data.astronaut()[100:260, 100:260], 0))
    (line, _) = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--json").json_lines
    assert "nothing to restore" in line["decision"]


def test_crop_shows_what_the_whole_would_be(run, tmp_path):
    noisy = np.clip(data.astronaut() + np.random.default_rng(0).normal(0, 15, (512, 512, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "in.png")
    assert run("restore", tmp_path / "in.png", tmp_path / "whole.png", "--precision", "fp32").code == 0
    sheet = tmp_path / "sheet.png"
    options = ("--crop", "201,133,90,70", "--compare", sheet, "--precision", "fp32")
    ran = run("restore", tmp_path / "in.png", tmp_path / "part.png", *options)
    assert ran.code == 0, ran.stderr
    part, whole = pixels(tmp_path / "part.png").astype(int), pixels(tmp_path / "whole.png").astype(int)
    assert np.abs(part - whole[133:203, 201:291]).max() <= 1
    shown = np.asarray(Image.open(sheet))
    assert shown.shape[0] >= 70
    assert (shown[:, -4:] == 255).all(), "a caption is cut off"
    assert (shown[-78:-8, 8:98] == noisy[133:203, 201:291]).all()
    assert run("restore", tmp_path / "in.png", tmp_path / "b.png", "--crop", "500,0,90,70").code == 1
    assert run("restore", tmp_path / "in.png", tmp_path / "b.png", "--crop", "1,2,3").code == 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_stamp_says_what_was_done(restore, folder, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    assert restore(folder / "0.png", out, "--stamp", "--strength", 0.7, "--metadata", "strip", *FAST).code == 0
    frame = read_frame(out)
    text = dict(frame.chunks).get(b"iTXt", b"") if suffix == "png" else frame.xmp
    for word in (b"deconv 0", b"denoise", b"tiny", b"0.7", b"20"):
        assert word in text
    import hashlib

    weights = hashlib.sha256(Path(restore.__closure__[1].cell_contents).read_bytes()).hexdigest()
    assert weights.encode() in text


def test_stamp_keeps_the_xmp_that_was_there():
    from deconv_cli.images.stamp import stamp

    rdf = b'<x:xmpmeta><rdf:RDF><rdf:Description dc:title="old"/></rdf:RDF></x:xmpmeta>'
    stamped = stamp(Frame(np.zeros((2, 2), np.uint8), xmp=rdf), {"Task": 'a "quoted" <b>'}, as_text=False).xmp
    assert b'dc:title="old"' in stamped
    assert b"&lt;b&gt;" in stamped
    assert stamped.endswith(b"</rdf:RDF></x:xmpmeta>")


def test_a_second_stamp_takes_the_place_of_the_first():
    from deconv_cli.images.stamp import stamp

    frame = Frame(np.zeros((2, 2), np.uint8), xmp=b'<rdf:RDF><rdf:Description dc:title="old"/></rdf:RDF>')
    once = stamp(frame, {"Task": "a > b", "Software": "deconv"}, as_text=False)
    twice = stamp(once, {"Task": "c"}, as_text=False).xmp
    assert twice == stamp(frame, {"Task": "c"}, as_text=False).xmp
    assert b'dc:title="old"' in twice
    assert twice.count(b"deconv:Task") == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"<r:RDF><r:Description/></r:RDF>",
        b'<rdf:RDF xmlns:rdf="..."/>',
        "<rdf:RDF></rdf:RDF>".encode("utf-16"),
        b'<rdf:RDF><rdf:Description xmlns:deconv="urn:deconv:provenance:1"><deconv:Task/></rdf:Description></rdf:RDF>',
    ],
)
def test_xmp_that_cannot_be_stamped_stays_with_a_warning(packet):
    frame = Frame(np.zeros((2, 2), np.uint8), xmp=packet, stamp=(("Task", "denoise"),))
    data, warnings = encode_frame(frame, "jpg")
    assert warnings == ("the XMP could not be stamped",)
    assert read_frame(data).xmp == packet


def test_large_pictures_are_refused_unless_asked_for(restore, folder, tmp_path):
    ran = restore(folder / "0.png", tmp_path / "out.png", "--max-pixels", 100, *FAST)
    assert ran.code == 1
    assert "raise --max-pixels" in ran.stderr


def test_out_of_memory_halves_the_tile_and_goes_on(tiny_weights, monkeypatch, caplog):
    image = data.astronaut()[:150, :170]
    restorer = Restorer(tiny_weights)
    expected = restorer.restore(image, noise_level=20, tile="off").pixels
    run_tile, sides = Restorer._run_tile, []

    def scarce(self, patch, how):
        sides.append(max(patch.shape))
        if sides[-1] > 140:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return run_tile(self, patch, how)

    monkeypatch.setattr(Restorer, "_run_tile", scarce)
    result = restorer.restore(image, noise_level=20, tile=160)
    assert np.abs(result.pixels.astype(int) - expected).max() <= 1
    assert sides[0] > 140 >= max(sides[2:])

    def never(self, *arguments):
        raise MemoryError

    monkeypatch.setattr(Restorer, "_run_tile", never)
    with pytest.raises(batch_module.DeconvError, match="memory does not suffice"):
        restorer.restore(image, noise_level=20)


@pytest.mark.parametrize("where", ["_run", "find_noise_level"])
def test_a_result_that_memory_does_not_suffice_for_fails_alone(restore, folder, tmp_path, monkeypatch, where):
    original = getattr(Restorer, where)

    def scarce(self, image, *arguments):
        if image.shape[0] == 48:
            raise MemoryError("Unable to allocate 1.00 TiB for an array")
        return original(self, image, *arguments)

    monkeypatch.setattr(Restorer, where, scarce)
    ran = restore(folder, tmp_path / "out", "--json", *FAST)
    assert ran.code == 1
    assert ran.json_lines[-1]["summary"] == {"restored": 7, "failed": 1}
    assert f"{folder / '1.png'}: memory does not suffice for the result" in ran.stderr
    ran = restore("-", "-", *FAST, stdin=(folder / "1.png").read_bytes())
    assert (ran.code, ran.stdout) == (1, b"")
    assert "standard input: memory does not suffice for the result" in ran.stderr


def test_a_picture_that_the_network_fails_on_is_named(restore, folder, tmp_path, monkeypatch):
    def never(*_):
        raise MemoryError

    monkeypatch.setattr(Restorer, "_run_tile", never)
    ran = restore(folder / "0.png", folder / "1.png", tmp_path / "out", *FAST)
    assert ran.code == 1
    assert f"error: {folder / '1.png'}: memory does not suffice even for small tiles" in ran.stderr


def test_a_picture_that_memory_does_not_suffice_to_look_at_fails_alone(run, folder, tmp_path, monkeypatch):
    def scarce(*_):
        raise MemoryError

    monkeypatch.setattr("deconv_cli.restoration.pages.decide", scarce)
    ran = run("restore", folder / "0.png", folder / "1.png", tmp_path / "out", "--json")
    assert ran.code == 1
    assert ran.json_lines[-1]["summary"] == {"failed": 2}
    assert f"{folder / '1.png'}: memory does not suffice" in ran.stderr


@pytest.mark.parametrize("options", [("--task", "sr"), ("--weights", "sr-x4"), ("--task", "sr", "--scale", 3)], ids=str)
def test_memory_is_reckoned_for_the_scale_that_the_weights_have(run, tmp_path, monkeypatch, options):
    Image.fromarray(data.astronaut()[:16, :16]).save(tmp_path / "in.png")
    reckoned = []

    def picture_bytes(width, height, bytes_per_pixel, scale):
        reckoned.append(scale)
        return 1

    monkeypatch.setattr(memory, "picture_bytes", picture_bytes)
    ran = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--json", *options)
    assert ran.code == 0, ran.stderr
    scale = ran.json_lines[0]["scale"]
    assert reckoned == [scale] != [1]
    job = planning.Job(tmp_path / "in.png", tmp_path / "out.png")
    restorers = Restorers("sr-x4" if "sr-x4" in options else None, "cpu", "auto")
    look_at(job, Options("sr", scale=3 if 3 in options else None), restorers, Estimate())
    assert reckoned == [scale, scale]


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, version):
    root, place = tmp_path / "cgroup", "box/inner"
    folder = root / "memory" / place if version == 1 else root / place
    folder.mkdir(parents=True)
    limit, usage = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    (folder.parent / limit).write_text("300000000\n")
    (folder.parent / usage).write_text("120000000\n")
    cache = "total_inactive_file" if version == 1 else "inactive_file"
    (folder.parent / "memory.stat").write_text(f"anon 5\n{cache} 20000000\n")
    (folder / limit).write_text("max\n")
    membership = tmp_path / "membership"
    membership.write_text(f"4:memory:/{place}\n" if version == 1 else f"0::/{place}\n")
    monkeypatch.setattr(container, "CGROUPS", root)
    monkeypatch.setattr(container, "MEMBERSHIP", membership)
    assert container.available_memory() == 200_000_000


def test_less_memory_makes_smaller_tiles():
    architecture = Restorer("denoise").description.architecture
    sides = [memory.tile_side(architecture, 4, free) for free in (10**8, 10**9, 10**11)]
    assert sides[0] < sides[1] < sides[2] <= 1536
    for free, side in zip((10**9, 10**11), sides[1:], strict=True):
        whole = (side + 2 * architecture.influence_radius) ** 2 * memory.activation_bytes(architecture, 4)
        assert whole <= min(free / 2, memory.ACTIVATIONS)


def test_all_weights_that_restored_the_pages_of_a_document_are_told(run, tmp_path, monkeypatch):
    page = Image.fromarray(data.camera()[:48, :48])
    page.save(tmp_path / "scan.tif", save_all=True, append_images=[page, page])
    decided = iter([Decision(None, 0, "clean"), Decision("decompress", 0, "blocks"), Decision("denoise", 9, "noise")])
    monkeypatch.setattr("deconv_cli.restoration.batch.decide_page", lambda *_: next(decided))
    # The first page is kept until another one needs something, and a copy is out of the question then.
    line = run("restore", tmp_path / "scan.tif", tmp_path / "out.tif", "--json").json_lines[0]
    assert (line["status"], line["pages"]) == ("restored", 3)
    assert (line["task"], line["weights"]) == ("decompress+denoise", "decompress+denoise")


def test_json_lines_keep_to_the_schema(restore, run, folder, tmp_path):
    schema = json.loads((ROOT / "docs" / "restore.schema.json").read_text())
    validate = jsonschema.Draft202012Validator(schema).validate
    (folder / "bad.png").write_bytes(b"no")
    ramp = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "clean.png")
    lines = restore(folder, tmp_path / "out", "--json", *FAST).json_lines
    lines += restore(folder, tmp_path / "out", "--json", "--resume", *FAST).json_lines
    lines += restore(folder, tmp_path / "two", "--json", "--dry-run").json_lines
    lines += run("restore", folder / "clean.png", tmp_path / "c.png", "--json").json_lines
    lines += run("restore", folder / "clean.png", tmp_path / "c.bmp", "--json").json_lines
    lines += restore("-", tmp_path / "piped.png", "--json", *FAST, stdin=(folder / "0.png").read_bytes()).json_lines
    for line in lines:
        validate(line)
    statuses = {line["status"] for line in lines if "status" in line}
    assert statuses == {"restored", "copied", "rewritten", "complete", "planned", "failed"}
    fields = {field.name for field in batch_module.Outcome.__dataclass_fields__.values()}
    file_schema = next(part for part in schema["oneOf"] if "status" in part["properties"])
    assert set(file_schema["properties"]) == set(file_schema["required"]) == fields
