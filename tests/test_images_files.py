"""Finding pictures in folders, and writing files whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from deconv_cli.errors import DeconvError
from deconv_cli.images import SUFFIXES, find_pictures, format_of, is_picture, read_frame, write_atomically
from deconv_cli.images.atomic import atomic_file


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.png",
        "A.JPG",
        "notes.txt",
        ".hidden.png",
        "sub/c.tif",
        "sub/deep/d.webp",
        "out/e.png",
        ".git/f.png",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.fixture
def forbid(monkeypatch):
    """Return a function that lets a path be one that may not be looked at, also by root."""

    def forbid(forbidden):
        look = os.stat

        def stat_or_refuse(path, *arguments, **options):
            if str(path) == str(forbidden):
                raise PermissionError(13, "Permission denied", str(path))
            return look(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", stat_or_refuse)

    return forbid


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in find_pictures(folder, **options)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
def test_a_pipe_is_refused_with_the_way_out(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)  # Without a writer, to open it would wait for one.
    os.write(writer, bytes(1000))
    try:
        with pytest.raises(DeconvError, match=r"pipe: a pipe cannot be read as a file; .* pipe it into - \(stdin\)"):
            read_frame(tmp_path / "pipe")
    finally:
        os.close(writer)


def test_suffixes():
    assert format_of(Path("x/scan.TIF")) == "tiff"
    assert format_of(Path("photo.jpeg")) == "jpg"
    assert format_of(Path("movie.mp4")) is None
    assert all(is_picture(Path("name" + suffix)) for suffix in SUFFIXES)
    assert not is_picture(Path(".png"))


def test_pictures_are_found_sorted_and_hidden_ones_skipped(tree):
    assert names(tree, recursive=False) == ["A.JPG", "b.png"]
    assert names(tree, recursive=True) == ["A.JPG", "b.png", "out/e.png", "sub/c.tif", "sub/deep/d.webp"]


def test_the_output_tree_is_left_out(tree):
    assert "out/e.png" not in names(tree, recursive=True, exclude=tree / "sub" / ".." / "out")
    assert names(tree, recursive=True, exclude=tree) == names(tree, recursive=True)
    assert names(tree, recursive=True, exclude=tree / "absent") == names(tree, recursive=True)


def test_link_loops_end_and_broken_links_are_skipped(tree):
    (tree / "sub" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "sub" / "self").symlink_to(tree / "sub", target_is_directory=True)
    (tree / "broken.png").symlink_to(tree / "absent.png")
    (tree / "linked").symlink_to(tree / "sub" / "deep", target_is_directory=True)
    assert names(tree, recursive=True) == [
        "A.JPG", "b.png", "linked/d.webp", "out/e.png", "sub/c.tif", "sub/deep/d.webp",
    ]  # fmt: skip


def test_a_missing_folder_is_an_error(tree):
    with pytest.raises(DeconvError, match="absent: the folder cannot be read"):
        find_pictures(tree / "absent", recursive=True)


def test_new_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "new", b"data")
    assert (tmp_path / "new").read_bytes() == b"data"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_replaced_files_keep_their_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(DeconvError, match=r"file: cannot be written \(No space left"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_for_the_file_is_an_error(tmp_path):
    with pytest.raises(DeconvError, match="cannot be written"):
        write_atomically(tmp_path / "absent" / "file", b"data")


@pytest.mark.parametrize("earlier", [True, False])
def test_permissions_and_times_that_cannot_be_given_cost_nothing_else(tmp_path, monkeypatch, earlier):
    path, like = tmp_path / "file", tmp_path.stat()
    if earlier:
        path.write_bytes(b"old")

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    with atomic_file(path, like=like, keep_times=True) as file:
        file.write(b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"new")]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    with atomic_file(path) as file:
        file.write(b"..ta")
        file.seek(0)
        file.write(b"da")
    reader.join(10)
    assert got == [b"data"]
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_takes_the_place_of_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: pytest.fail("it replaced a device"))
    write_atomically(Path(os.devnull), b"data")


@pytest.mark.parametrize("earlier", [True, False])
def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path, earlier):
    link, real = tmp_path / "links" / "link", tmp_path / "real" / "file"
    link.parent.mkdir()
    real.parent.mkdir()
    if earlier:
        real.write_bytes(b"old")
    link.symlink_to(Path("..") / "real" / "file")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert [*link.parent.iterdir(), *real.parent.iterdir()] == [link, real]
    (tmp_path / "folder").symlink_to(real.parent, target_is_directory=True)
    write_atomically(tmp_path / "folder" / "file", b"newer")
    assert real.read_bytes() == b"newer"


def test_what_cannot_be_looked_at_is_passed_over(tree, forbid):
    forbid(tree / "b.png")
    forbid(tree / "sub")
    assert names(tree, recursive=True) == ["A.JPG", "out/e.png"]
