"""``deconv restore``: where results go, what is refused, what a script can rely on."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import signal
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from deconv_cli.cli.app import run as run_app
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.cli.streams import Streams
from deconv_cli.errors import UsageError
from deconv_cli.images import read_frame
from deconv_cli.network.weights import load_weights, save_weights
from deconv_cli.restoration import batch, planning
from deconv_cli.restoration.decision import decide

FAST = ("--noise-level", 20)


@pytest.fixture
def restore(run, tiny_weights):
    """Run ``deconv restore`` with the tiny network."""

    def run_restore(*arguments, **streams):
        return run("restore", *arguments, "--weights", tiny_weights, **streams)

    return run_restore


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_file_to_file(restore, noisy_folder, tmp_path):
    ran = restore(noisy_folder / "cat.png", tmp_path / "out.png", *FAST)
    assert (ran.code, ran.stdout) == (0, b"")
    assert "noise level 20.0 (given)" in ran.stderr
    before, after = read(noisy_folder / "cat.png"), read(tmp_path / "out.png")
    assert after.shape == before.shape
    assert not np.array_equal(before, after)
    assert not list(tmp_path.glob(".*"))


def test_the_shipped_weights_improve_the_picture(run, tmp_path):
    clean = data.chelsea()[60:220, 100:300]
    Image.fromarray(clean).save(tmp_path / "clean.png")
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(tmp_path / "noisy.png")
    assert run("restore", tmp_path / "noisy.png", tmp_path / "out.png").code == 0
    scores = [run("score", tmp_path / "clean.png", tmp_path / name, "--json").json for name in ("noisy.png", "out.png")]
    before, after = (score["mean"]["psnr"] for score in scores)
    assert after > before + 8


def test_folders_keep_their_tree(restore, noisy_folder, tmp_path):
    out = tmp_path / "out"
    ran = restore(noisy_folder, out, "--recursive", "--suffix", "-clean", *FAST)
    assert ran.code == 0
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert names == ["camera-clean.png", "cat-clean.png", "inner/cup-clean.png"]
    assert "3 pictures: 3 restored" in ran.stderr
    flat = restore(noisy_folder, tmp_path / "flat", *FAST)
    assert flat.code == 0
    assert not (tmp_path / "flat" / "inner").exists()


def test_the_output_tree_is_not_read_as_input(restore, noisy_folder):
    out = noisy_folder / "out"
    assert restore(noisy_folder, out, "--recursive", *FAST).code == 0
    assert restore(noisy_folder, out, "--recursive", "--overwrite", *FAST).code == 0
    assert not (out / "out").exists()


def test_a_bad_file_fails_alone(restore, noisy_folder, tmp_path):
    (noisy_folder / "bad.png").write_bytes(b"not a picture")
    ran = restore(noisy_folder, noisy_folder / "missing.png", tmp_path / "out", "--json", *FAST)
    assert ran.code == 1
    assert f"error: {noisy_folder / 'bad.png'}" in ran.stderr
    *files, summary = ran.json_lines
    assert {file["status"] for file in files} == {"restored", "failed"}
    assert summary["summary"] == {"restored": 2, "failed": 2}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["camera.png", "cat.png"]


def test_fail_fast_stops(restore, noisy_folder, tmp_path):
    (noisy_folder / "a.png").write_bytes(b"not a picture")
    ran = restore(noisy_folder, tmp_path / "out", "--fail-fast", "--json", *FAST)
    assert ran.code == 1
    assert len(ran.json_lines) == 2


def test_what_would_lose_a_file_is_refused(restore, noisy_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "cat.png").write_bytes(b"precious")
    ran = restore(noisy_folder, out, *FAST)
    assert ran.code == 2
    assert str(out / "cat.png") in ran.stderr
    assert [path.name for path in out.iterdir()] == ["cat.png"]

    ran = restore(noisy_folder, noisy_folder, *FAST)
    assert ran.code == 2
    assert "overwrite an input" in ran.stderr

    twin = noisy_folder / "cat.jpg"
    Image.open(noisy_folder / "cat.png").save(twin)
    ran = restore(noisy_folder, tmp_path / "new", "--format", "png", *FAST)
    assert ran.code == 2
    assert "cat.jpg" in ran.stderr
    assert not (tmp_path / "new").exists()


def test_names_that_differ_in_case_alone_collide(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match="one output"):
        planning.plan([tmp_path / "a" / "X.png", tmp_path / "b" / "x.png"], tmp_path / "out")


def test_dry_run_lists_and_does_nothing(restore, noisy_folder, tmp_path):
    ran = restore(noisy_folder, tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert f"{noisy_folder / 'cat.png'} -> {tmp_path / 'out' / 'cat.png'}" in ran.text
    assert not (tmp_path / "out").exists()
    ran = restore(noisy_folder, tmp_path / "out", "--dry-run", "--json")
    *files, summary = ran.json_lines
    assert {line["status"] for line in files} == {"planned"}
    assert {(line["width"], line["height"]) for line in files} == {(96, 64), (80, 72)}
    assert summary["summary"] == {"planned": 2}
    assert summary["megapixels"] == pytest.approx((96 * 64 + 80 * 72) / 1e6, abs=1e-3)
    assert summary["seconds"] >= 0
    assert summary["memory_bytes"] > 10**8


def test_an_original_is_not_replaced_under_another_of_its_names(restore, noisy_folder, tmp_path):
    """A hard link stands for what a second mount, or a disk that does not tell cases apart, does."""
    (tmp_path / "out").mkdir()
    os.link(noisy_folder / "cat.png", tmp_path / "out" / "cat.png")
    before = (noisy_folder / "cat.png").read_bytes()
    ran = restore(noisy_folder, tmp_path / "out", "--overwrite", *FAST)
    assert ran.code == 2
    assert "would overwrite an input" in ran.stderr
    assert (noisy_folder / "cat.png").read_bytes() == before


def test_a_usage_error_leaves_no_claim_on_files_to_come(run, noisy_folder, tmp_path):
    out = tmp_path / "out"
    assert run("restore", noisy_folder, out, "--weights", "denoise", "--noise-level", 100).code == 2
    assert not out.exists()
    out.mkdir()
    (out / "camera.png").write_bytes(b"somebody's own")
    ran = run("restore", noisy_folder, out, "--weights", "denoise", "--noise-level", 20, "--resume")
    assert ran.code == 2
    assert (out / "camera.png").read_bytes() == b"somebody's own"


def test_a_dry_run_takes_a_picture_without_suffix_for_what_it_is(restore, tmp_path):
    with tifffile.TiffWriter(tmp_path / "pages") as file:
        for _ in range(3):
            file.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb")
    for options in (("--dry-run",), ()):
        ran = restore(tmp_path / "pages", tmp_path / "out", "--json", *options)
        assert ran.code == 0, ran.stderr
        assert ran.json_lines[0]["pages"] == 3


def test_resume_does_only_what_is_missing_or_changed(restore, noisy_folder, tmp_path):
    out = tmp_path / "out"

    def statuses(*options):
        ran = restore(noisy_folder, out, "--resume", "--json", *FAST, *options)
        assert ran.code == 0, ran.stderr
        return {line["input"].rpartition("/")[2]: line["status"] for line in ran.json_lines[:-1]}

    assert set(statuses().values()) == {"restored"}
    assert set(statuses().values()) == {"complete"}
    (out / "cat.png").unlink()
    assert statuses() == {"cat.png": "restored", "camera.png": "complete"}
    os.utime(noisy_folder / "camera.png", (1, 1))
    assert statuses() == {"cat.png": "complete", "camera.png": "restored"}
    (out / "cat.png").write_bytes(b"cut")
    assert restore(noisy_folder, out, "--resume", *FAST).code == 2
    assert statuses("--overwrite") == {"cat.png": "restored", "camera.png": "complete"}
    assert set(statuses("--strength", 0.5).values()) == {"restored"}
    with (out / ".deconv.jsonl").open("a") as record:
        record.write('{"output": "cat.p')  # a run that was killed while writing
    assert set(statuses("--strength", 0.5).values()) == {"complete"}
    before = (noisy_folder / "cat.png").stat()
    with (noisy_folder / "cat.png").open("ab") as grown:
        grown.write(b"more")
    os.utime(noisy_folder / "cat.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert statuses("--strength", 0.5) == {"cat.png": "restored", "camera.png": "complete"}


def test_resume_restores_again_with_other_weights(run, noisy_folder, tiny_weights, tmp_path):
    weights = load_weights(tiny_weights)
    other = tmp_path / "other.safetensors"
    save_weights(
        other, dataclasses.replace(weights, parameters={name: 0 * of for name, of in weights.parameters.items()})
    )
    for file, status in ((tiny_weights, "restored"), (tiny_weights, "complete"), (other, "restored")):
        ran = run("restore", noisy_folder, tmp_path / "out", "--resume", "--weights", file, "--json", *FAST)
        assert {line["status"] for line in ran.json_lines[:-1]} == {status}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_file_and_resume_the_rest(restore, noisy_folder, tmp_path, monkeypatch, number, code):
    restore_page = batch.restore_page

    def interrupted(*arguments, **options):
        signal.raise_signal(number)
        return restore_page(*arguments, **options)

    monkeypatch.setattr(batch, "restore_page", interrupted)
    ran = restore(noisy_folder, tmp_path / "out", *FAST)
    assert ran.code == code
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["camera.png"]
    monkeypatch.undo()
    ran = restore(noisy_folder, tmp_path / "out", "--resume", "--json", *FAST)
    assert ran.code == 0
    assert ran.json_lines[-1]["summary"] == {"complete": 1, "restored": 1}


def test_a_second_ctrl_c_aborts_at_once():
    with pytest.raises(KeyboardInterrupt), graceful_stop() as stop:  # noqa: PT012 - what the first one does counts
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)


def test_no_picture_is_written_to_a_terminal(noisy_folder):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    screen, messages = Terminal(), io.StringIO()
    streams = Streams(io.BytesIO(), screen, messages)
    assert run_app(["restore", str(noisy_folder / "cat.png"), "-"], streams) == 2
    assert "not written to a terminal" in messages.getvalue()
    assert not screen.getvalue()


def test_what_goes_through_a_pipe_refuses_the_options_of_files(restore, noisy_folder, tmp_path):
    picture, out = (noisy_folder / "cat.png").read_bytes(), tmp_path / "out.jpg"
    for option in ("--dry-run", "--resume", "--recursive", "--preserve-times"):
        ran = restore("-", out, option, *FAST, stdin=picture)
        assert ran.code == 2
        assert option in ran.stderr
    assert restore("-", out, "--format", "png", *FAST, stdin=picture).code == 2
    assert not out.exists()


def test_resume_is_proposed_only_where_it_can_be_given(restore, noisy_folder, tmp_path):
    out, sheet, picture = tmp_path / "out.png", tmp_path / "sheet.png", noisy_folder / "cat.png"
    for path in (out, sheet):
        path.write_bytes(b"mine")
    stdin = picture.read_bytes()
    for refused in (
        restore(picture, out, *FAST),
        restore("-", out, *FAST, stdin=stdin),
        restore("-", "-", "--compare", sheet, *FAST, stdin=stdin),
        restore(picture, tmp_path / "other.png", "--compare", sheet, *FAST),
    ):
        assert refused.code == 2
        assert "already there" in refused.stderr
        assert "--overwrite" in refused.stderr
        assert "--resume" not in refused.stderr
    (tmp_path / "cat.png").write_bytes(b"mine")
    assert "--resume" in restore(picture, tmp_path, *FAST).stderr


def test_a_suffix_beside_the_name_of_a_file_is_refused(run, restore, noisy_folder, tmp_path):
    picture, out = noisy_folder / "cat.png", tmp_path / "out.png"
    degraded = run("degrade", picture, out, "--noise-level", 5, "--suffix", "-x")
    for ran in (restore(picture, out, "--suffix", "-x", *FAST), degraded):
        assert ran.code == 2
        assert "--suffix is for results in a folder" in ran.stderr
    assert not out.exists()


def test_a_dash_where_there_is_no_pipe_does_not_become_a_name(run, restore, noisy_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = noisy_folder / "cat.png"
    for ran in (
        restore(picture, "out", "--failed", "-", *FAST),
        run("degrade", picture, "-", "--noise-level", 5),
        run("degrade", "-", "out.png", "--noise-level", 5),
        run("score", picture, picture, "--csv", "-"),
    ):
        assert ran.code == 2
        assert "error: -: nothing is read from or written to a pipe here" in ran.stderr
    assert list(tmp_path.iterdir()) == [noisy_folder]


def test_pipes(restore, noisy_folder, tmp_path):
    picture = (noisy_folder / "cat.png").read_bytes()
    piped = restore("-", "-", "--json", *FAST, stdin=picture)
    assert piped.code == 0, piped.stderr
    told, summary = map(json.loads, piped.stderr.splitlines())
    assert (told["status"], summary["summary"], summary["total"]) == ("restored", {"restored": 1}, 1)
    assert piped.stdout.startswith(b"\x89PNG")
    restore(noisy_folder / "cat.png", tmp_path / "out.png", *FAST)
    assert piped.stdout == (tmp_path / "out.png").read_bytes()
    assert restore("-", "-", "--format", "jpg", *FAST, stdin=picture).stdout.startswith(b"\xff\xd8")
    assert restore("-", tmp_path / "in.webp", *FAST, stdin=picture).code == 0
    assert read(tmp_path / "in.webp").shape == read(noisy_folder / "cat.png").shape
    assert restore(noisy_folder / "cat.png", "-", *FAST).stdout == piped.stdout
    broken = restore("-", "-", stdin=b"nothing")
    assert (broken.code, broken.stdout) == (1, b"")
    assert "standard input" in broken.stderr
    broken = restore("-", tmp_path / "broken.png", "--json", stdin=b"nothing")
    told, summary = broken.json_lines
    assert (broken.code, told["status"], summary["summary"]) == (1, "failed", {"failed": 1})
    assert broken.stderr == f"error: {told['error']}\n"
    assert restore("-", "-", "-", stdin=picture).code == 2
    assert restore("-", tmp_path / "folder", stdin=picture).code == 2
    assert restore("-", tmp_path / "in.webp", stdin=picture).code == 2


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_what_follows_a_picture_in_the_pipe_is_warned_of(restore, noisy_folder, deep):
    picture = (noisy_folder / "cat.png").read_bytes()
    if deep:
        picture = imagecodecs.png_encode(read(noisy_folder / "cat.png").astype(np.uint16) * 257)
    alone = restore("-", "-", *FAST, stdin=picture)
    assert alone.code == 0
    assert "warning" not in alone.stderr
    for behind, told in {
        picture: "another picture behind it was left out",
        b"notes": "5 bytes behind its end were left out",
    }.items():
        ran = restore("-", "-", *FAST, stdin=picture + behind)
        assert (ran.code, ran.stdout) == (0, alone.stdout)
        assert f"warning: standard input: {told}\n" in ran.stderr
    assert restore("-", "-", *FAST, stdin=picture + bytes(512)).stderr == alone.stderr


FILM = bytes((0, 0, 0, 24)) + b"ftypmp42" + bytes(4) + b"mp42isom"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (FILM, "the film of a motion photo was left out"),
        (
            b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + FILM + b"SEFH" + bytes(20) + b"SEFT",
            "the film of a motion photo",
        ),
        (b"notes", "5 bytes behind its end were left out"),
        (None, "another picture behind it was left out"),
        (b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1600000000000SEFH" + bytes(20) + b"SEFT", ""),
        (bytes(512), ""),
        (b"\xff" * 9, ""),
        (b"\xff\0\xfe", "3 bytes behind its end were left out"),
    ],
)
def test_what_a_telephone_writes_behind_a_jpeg_is_warned_of(restore, behind, told, progressive):
    file = io.BytesIO()
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
        <rdf:Description GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"/>
        <GCamera:MicroVideo>1</GCamera:MicroVideo></x:xmpmeta>"""
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 16)).save(thumbnail, "JPEG")
    picture = Image.fromarray(data.cat()[:64, :64])
    picture.save(file, "JPEG", xmp=xmp, restart_marker_rows=1, comment=thumbnail.getvalue(), progressive=progressive)
    jpeg = file.getvalue()
    ran = restore("-", "-", *FAST, "--format", "jpg", stdin=jpeg + (jpeg if behind is None else behind))
    assert ran.code == 0
    assert f"warning: standard input: {told}" in ran.stderr if told else "warning" not in ran.stderr
    kept = Image.open(io.BytesIO(ran.stdout)).info["xmp"]
    assert b'GCamera:MotionPhoto="0"' in kept
    assert b'GCamera:MotionPhotoVersion="1"' in kept
    assert b"<GCamera:MicroVideo>0</GCamera:MicroVideo>" in kept


def test_a_clean_picture_is_copied_byte_for_byte(run, tmp_path):
    ramp = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png", compress_level=1)
    ran = run("restore", tmp_path / "ramp.png", tmp_path / "out.png", "--json")
    outcome = ran.json_lines[0]
    assert (outcome["status"], outcome["task"]) == ("copied", None)
    assert "nothing to restore" in outcome["decision"]
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "ramp.png").read_bytes()
    assert run("restore", tmp_path / "ramp.png", tmp_path / "out.bmp").code == 0
    assert np.array_equal(read(tmp_path / "out.bmp"), ramp)
    assert run("restore", tmp_path / "ramp.png", tmp_path / "stamped.png", "--stamp").code == 0
    assert (tmp_path / "stamped.png").read_bytes() == (tmp_path / "ramp.png").read_bytes()
    ran = run("restore", tmp_path / "ramp.png", tmp_path / "forced.png", "--task", "denoise", "--json")
    assert ran.json_lines[0]["status"] == "restored"


def test_damage_is_warned_of_though_the_picture_is_copied(restore, run, tmp_path):
    ramp = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "JPEG", quality=100)
    jpeg = file.getvalue()
    more = bytes(range(1, 200))
    (tmp_path / "long.jpg").write_bytes(jpeg[:-2] + more + jpeg[-2:])
    for command, status in ((functools.partial(run, "restore"), "copied"), (restore, "restored")):
        options = FAST if status == "restored" else ()
        ran = command(tmp_path / "long.jpg", tmp_path / f"{status}.jpg", "--json", *options)
        outcome = ran.json_lines[0]
        assert outcome["status"] == status
        assert outcome["warnings"] == ["the picture may be damaged: it ended before its samples did"]
        assert "long.jpg" in ran.stderr


def test_a_clean_picture_is_written_anew_for_what_a_copy_cannot_give(run, tmp_path):
    ramp = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    exif = Image.Exif()
    exif[271] = "Maker"
    Image.fromarray(ramp).save(tmp_path / "ramp.png", exif=exif)
    out = tmp_path / "out.png"
    assert run("restore", tmp_path / "ramp.png", out, "--metadata", "strip").code == 0
    assert not Image.open(out).getexif()
    assert run("restore", tmp_path / "ramp.png", out, "--crop", "0,0,64,48", "--overwrite").code == 0
    assert read(out).shape == (48, 64)
    Image.fromarray(np.dstack([ramp] * 3)).save(tmp_path / "ramp.jpg", quality=96)
    assert run("restore", tmp_path / "ramp.jpg", tmp_path / "out.jpg", "--quality", 50).code == 0
    assert (tmp_path / "out.jpg").stat().st_size < (tmp_path / "ramp.jpg").stat().st_size


def test_a_palette_is_kept_by_a_copy_and_missed_with_a_warning_where_none_is_written(run, restore, tmp_path):
    ramp = Image.fromarray(np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)).convert("P")
    for suffix, mode in (("tif", "RGB"), ("png", "P")):
        source, out = tmp_path / f"ramp.{suffix}", tmp_path / f"out.{suffix}"
        ramp.save(source)
        assert run("restore", source, out, "--palette", "--json").json_lines[0]["status"] == "copied"
        assert out.read_bytes() == source.read_bytes()
        ran = restore(source, out, "--palette", "--overwrite", "--json", *FAST)
        with Image.open(out) as image:
            assert image.mode.replace("L", "RGB") == mode
        assert ran.json_lines[0]["warnings"] == (
            ["TIFF is written without a palette: the colours stay what they are"] if suffix == "tif" else []
        )


def test_an_animation_of_palette_frames_warns_that_it_gets_none(run, tmp_path):
    ramp = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    first, second = (Image.fromarray(values).convert("P") for values in (ramp, ramp[::-1]))
    first.save(tmp_path / "in.png", save_all=True, append_images=[second], duration=100)
    ran = run("restore", tmp_path / "in.png", tmp_path / "out.png", "--palette", "--json", *FAST)
    assert ran.code == 0, ran.stderr
    assert ran.json_lines[0]["warnings"] == ["PNG is written without a palette: the colours stay what they are"]
    with Image.open(tmp_path / "out.png") as image:
        assert (image.n_frames, image.mode) == (2, "L")


@pytest.mark.parametrize(
    ("noise", "quality", "expected"),
    [(25, None, "denoise"), (8, None, "denoise"), (25, 85, "denoise"), (0, 30, "decompress"), (0, 70, "decompress")],
)
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "camera"])
def test_auto_decides_by_noise_and_compression(tmp_path, name, noise, quality, expected):
    clean = getattr(data, name)()
    noisy = clean + np.random.default_rng(0).normal(0, noise, clean.shape)
    path = tmp_path / ("in.png" if quality is None else "in.jpg")
    options = {} if quality is None else {"quality": quality}
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(path, **options)
    decision = decide(read_frame(path), {"denoise", "decompress"})
    assert decision.task == expected
    without = decide(read_frame(path), {"denoise"})
    assert without.task == (expected if expected == "denoise" else None)


def test_blind_weights_fix_the_task_and_take_no_level(run, noisy_folder, tmp_path, tiny_blind_weights):
    source, weights = noisy_folder / "cat.png", ("--weights", tiny_blind_weights)
    ran = run("restore", source, tmp_path / "out.png", *weights, "--json")
    assert ran.code == 0, ran.stderr
    outcome = ran.json_lines[0]
    assert (outcome["task"], outcome["status"], outcome["noise_level"]) == ("decompress", "restored", None)
    assert run("restore", source, tmp_path / "b.png", *weights, "--task", "denoise").code == 2
    assert run("restore", source, tmp_path / "b.png", *weights, *FAST).code == 2
    assert not (tmp_path / "b.png").exists()
    rows = run("bench", noisy_folder, *weights, "--levels", "10,40", "--json").json["rows"]
    assert rows[0]["input_psnr"] < rows[1]["input_psnr"]


def test_formats_metadata_and_quality(restore, noisy_folder, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = 6
    Image.open(noisy_folder / "cat.png").save(tmp_path / "in.jpg", exif=exif, icc_profile=b"profile", quality=97)
    assert restore(tmp_path / "in.jpg", tmp_path / "out", "--format", "png", *FAST).code == 0
    with Image.open(tmp_path / "out" / "in.png") as image:
        assert image.size == (64, 96)  # turned upright
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get(0x0112, 1) == 1
        assert image.info["icc_profile"] == b"profile"
    assert restore(tmp_path / "in.jpg", tmp_path / "bare.jpg", "--metadata", "strip", *FAST).code == 0
    with Image.open(tmp_path / "bare.jpg") as image:
        assert 0x010F not in image.getexif()
    assert restore(tmp_path / "in.jpg", tmp_path / "low.jpg", "--quality", 20, *FAST).code == 0
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "bare.jpg").stat().st_size


def test_strength_zero_keeps_every_pixel(restore, noisy_folder, tmp_path):
    assert restore(noisy_folder, tmp_path / "out", "--strength", 0, *FAST).code == 0
    for name in ("cat.png", "camera.png"):
        assert np.array_equal(read(tmp_path / "out" / name), read(noisy_folder / name))


def test_verbose_says_what_ran_and_how_and_what_libraries_warn_of(restore, noisy_folder, tmp_path, tiny_weights):
    picture, cut = noisy_folder / "camera.png", tmp_path / "cut.tif"
    exif = Image.Exif()
    exif[271] = "Maker" * 40
    Image.open(picture).save(cut, exif=exif)
    content = cut.read_bytes()
    # The maker's name lies behind the end of the file.
    cut.write_bytes(content.replace(content.index(b"Maker").to_bytes(4, "little"), (10**6).to_bytes(4, "little")))
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        plain = restore(cut, tmp_path / "plain.tif", *FAST)
        quiet = restore(cut, tmp_path / "quiet.tif", "--quiet", *FAST)
        verbose = restore(cut, tmp_path / "verbose.tif", "--verbose", "--tile", 40, *FAST)
    assert (plain.code, quiet.stderr) == (0, "")
    assert not printed
    assert "UserWarning" not in plain.stderr
    tiles = "80 x 72 pixels in tiles of 40 x 40: 4"
    for words in (f"weights {tiny_weights}: ", "tiny runs in ", tiles):
        assert words in verbose.stderr
        assert words not in plain.stderr
    assert "UserWarning: " in verbose.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--noise-level", 100),
        ("--task", "photo", "--noise-level", 5),
        ("--weights", "denoise", "--task", "photo"),
        ("--weights", "sr-x2", "--scale", 3),
    ],
)
def test_what_the_weights_cannot_do_is_refused_before_any_work(run, noisy_folder, tmp_path, options):
    ran = run("restore", noisy_folder, tmp_path / "out", *options)
    assert ran.code == 2
    assert "the weights" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_sheet_that_nothing_was_restored_for_is_said_not_to_be_there(run, tmp_path):
    Image.fromarray(data.astronaut()[:96, 100:220]).save(tmp_path / "clean.png")
    ran = run("restore", tmp_path / "clean.png", tmp_path / "out.png", "--compare", tmp_path / "sheet.png")
    assert ran.code == 0, ran.stderr
    assert not (tmp_path / "sheet.png").exists()
    assert f"{tmp_path / 'sheet.png'}: no sheet was written" in ran.stderr


def test_compare_sheet(restore, noisy_folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert restore(noisy_folder, tmp_path / "out", "--compare", sheet, *FAST).code == 0
    pixels = read(sheet)
    assert pixels.shape[0] > 64 + 72
    assert pixels.shape[1] > 2 * 96
    assert restore(noisy_folder, tmp_path / "more", "--compare", sheet).code == 2
    assert restore(noisy_folder, tmp_path / "more", "--compare", tmp_path / "sheet.jpg").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("in.png",), 2, "OUTPUT"),
        (("in.png", "out.png", "--task", "denoize"), 2, "did you mean 'denoise'"),
        (("in.png", "out.png", "--noise-level", "much"), 2, "--noise-level"),
        (("", "out"), 2, "an argument is empty"),
        (("--overwrite", "", "out"), 2, "an argument is empty"),
        (("in.png", "out.ppm", "--suffix", ""), 2, "cannot write this format"),
        (("in.png", "out.png", "--tile", "huge"), 2, "--tile"),
        (("in.png", "out.png", "--tile", "-5"), 2, "positive number of pixels"),
        (("in.png", "out.png", "--strength", "nan"), 2, "--strength takes a number from 0 to 1"),
        (("in.png", "out.png", "--device", "gpu"), 2, "valid: auto, cpu, cuda, mps"),
        (("in.png", "out", "--format", "ppm"), 2, "valid:"),
        (("in.png", "out.ppm"), 2, "cannot write this format"),
        (("in.png", "out.png", "--format", "jpg"), 2, "does not say jpg"),
        (("in.png", "out.png", "--resume"), 2, "--resume"),
        (("in.png", "out.png", "--noise-level", "200"), 2, "outside the range"),
        (("empty", "out"), 3, "no picture"),
    ],
)
def test_bad_requests(restore, noisy_folder, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "in.png").write_bytes((noisy_folder / "cat.png").read_bytes())
    ran = restore(*arguments)
    assert ran.code == code
    assert message in ran.stderr
    assert not (tmp_path / "out.png").exists()
    assert not (tmp_path / "out").exists()


def test_unknown_weights_name_the_nearest(run, noisy_folder, tmp_path):
    ran = run("restore", noisy_folder / "cat.png", tmp_path / "out.png", "--weights", "denoize")
    assert ran.code == 2
    assert "did you mean 'denoise'" in ran.stderr


def test_an_output_that_cannot_be_written_fails_by_name(restore, noisy_folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    ran = restore(noisy_folder / "cat.png", tmp_path / "file" / "out.png", *FAST)
    assert ran.code == 1
    assert str(tmp_path / "file") in ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_in_a_circle_fails_alone(restore, noisy_folder, tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    ran = restore(loop, noisy_folder / "cat.png", tmp_path / "out", *FAST)
    assert ran.code == 1
    assert f"{loop}: cannot be read" in ran.stderr
    assert (tmp_path / "out" / "cat.png").is_file()
