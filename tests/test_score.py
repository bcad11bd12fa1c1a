"""`deconv score`: what is compared with what, what the numbers are, and what the exit code says."""

import csv
import json
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from skimage import data

from deconv_cli.metrics import psnr, ssim


def photograph(seed=0, size=48):
    top, left = np.random.default_rng(seed).integers(0, 400, 2)
    return data.astronaut()[top : top + size, left : left + size]


def noisy(picture, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three references and their tests; "b" is the worst and "c" is identical."""
    for seed, (name, sigma) in enumerate({"a": 5, "b": 20, "c": 0}.items()):
        picture = photograph(seed)
        save(tmp_path / "clean" / f"{name}.png", picture)
        save(tmp_path / "test" / f"{name}.png", noisy(picture, sigma, seed))
    return tmp_path / "clean", tmp_path / "test"


def by_name(result):
    return {picture["name"]: picture for picture in result.json["pictures"]}


def errors(result):
    return {failure["name"]: failure["error"] for failure in result.json["failed"]}


def test_two_files(run, tmp_path):
    reference, test = photograph(), noisy(photograph(), 10)
    files = save(tmp_path / "reference.png", reference), save(tmp_path / "restored.png", test)
    result = run("score", *files, "--json")
    assert result.code == 0
    (picture,) = result.json["pictures"]
    assert picture["name"] == "restored.png"
    assert picture["psnr"] == psnr(reference, test)
    assert picture["ssim"] == ssim(reference, test)
    assert picture["identical"] is False
    assert picture["data_range"] == 255
    assert result.json["mean"]["psnr"] == picture["psnr"]


@pytest.mark.parametrize("channel", ["y", "gray"])
def test_channel_and_crop_reach_the_metrics_and_the_protocol(run, tmp_path, channel):
    reference, test = photograph(), noisy(photograph(), 10)
    files = save(tmp_path / "reference.png", reference), save(tmp_path / "restored.png", test)
    result = run("score", *files, "--channel", channel, "--crop", "4", "--json")
    (picture,) = result.json["pictures"]
    assert picture["psnr"] == psnr(reference, test, channel=channel, crop=4)
    assert picture["ssim"] == ssim(reference, test, channel=channel, crop=4)
    protocol = result.json["protocol"]
    assert (protocol["channel"], protocol["crop"]) == (channel, 4)
    assert {"data_range", "ssim_window", "averaging"} <= protocol.keys()


def test_16_bit_files_are_scored_on_their_own_range(run, tmp_path):
    reference = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    test = reference ^ np.uint16(1)
    files = save(tmp_path / "reference.png", reference), save(tmp_path / "restored.png", test)
    (picture,) = run("score", *files, "--json").json["pictures"]
    assert picture["psnr"] == pytest.approx(20 * math.log10(65535))
    assert picture["data_range"] == 65535


def test_folders_and_the_mean_over_pictures_that_differ(run, folders):
    result = run("score", *folders, "--json")
    assert result.code == 0
    pictures = by_name(result)
    assert list(pictures) == ["a", "b", "c"]
    assert (pictures["c"]["psnr"], pictures["c"]["ssim"], pictures["c"]["identical"]) == (None, 1.0, True)
    mean = result.json["mean"]
    assert mean["psnr"] == pytest.approx((pictures["a"]["psnr"] + pictures["b"]["psnr"]) / 2)
    assert mean["ssim"] == pytest.approx(sum(picture["ssim"] for picture in pictures.values()) / 3)
    assert (mean["scored"], mean["identical_pictures"], mean["identical"]) == (3, 1, False)


def test_equal_pictures_are_infinite_for_people_and_null_in_json(run, tmp_path):
    files = save(tmp_path / "a.png", photograph()), save(tmp_path / "b.png", photograph())
    result = run("score", *files, "--json", "--fail-under", "99")
    assert result.code == 0
    assert result.json["mean"]["psnr"] is None
    assert result.json["mean"]["identical"] is True
    assert "identical" in run("score", *files).text


def test_sort_puts_the_worst_first(run, folders):
    result = run("score", *folders, "--sort", "--json")
    assert list(by_name(result)) == ["b", "a", "c"]


def test_pictures_are_matched_by_name_never_by_position(run, tmp_path):
    # In the order of names "b" would meet "c": one of each folder has no partner.
    for name in ("a", "b", "d"):
        save(tmp_path / "clean" / f"{name}.png", photograph(ord(name)))
    for name in ("a", "c", "d"):
        save(tmp_path / "test" / f"{name}.jpg", photograph(ord(name)))
    result = run("score", tmp_path / "clean", tmp_path / "test", "--json")
    assert result.code == 1
    assert list(by_name(result)) == ["a", "d"]
    assert errors(result).keys() == {"b", "c"}
    assert "b.png" in errors(result)["b"]
    assert "c.jpg" in errors(result)["c"]


def test_a_suffix_is_refused_where_nothing_is_matched(run, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(data.camera()[:32, :32]).save(tmp_path / name)
    ran = run("score", tmp_path / "a.png", tmp_path / "b.png", "--suffix", "_out")
    assert (ran.code, ran.text) == (2, "")
    assert ran.stderr == f"error: {tmp_path / 'b.png'}: --suffix matches the pictures of two folders; leave it out\n"


def test_suffix(run, tmp_path):
    for name in ("a", "a_out"):
        save(tmp_path / "clean" / f"{name}.png", photograph(len(name)))
        save(tmp_path / "test" / f"{name}_out.png", photograph(len(name)))
    save(tmp_path / "test" / "stray.png", photograph())
    result = run("score", tmp_path / "clean", tmp_path / "test", "--suffix", "_out", "--json")
    assert result.code == 1
    assert all(picture["identical"] for picture in result.json["pictures"])
    assert list(by_name(result)) == ["a", "a_out"]
    assert "'_out'" in errors(result)["stray"]


def test_duplicate_names_are_listed_and_the_rest_is_scored(run, folders):
    clean, _ = folders
    save(clean / "a.bmp", photograph())
    result = run("score", *folders, "--json")
    assert result.code == 1
    assert list(by_name(result)) == ["b", "c"]
    assert "a.png" in errors(result)["a"]
    assert "a.bmp" in errors(result)["a"]


def test_recursive_matches_by_relative_path(run, folders):
    clean, test = folders
    for folder in folders:
        save(folder / "more" / "a.png", photograph(7))
    save(test / "other" / "b.png", photograph(8))
    assert list(by_name(run("score", clean, test, "--json"))) == ["a", "b", "c"]
    result = run("score", clean, test, "--recursive", "--json")
    assert list(by_name(result)) == ["a", "b", "c", "more/a"]
    assert by_name(result)["more/a"]["identical"]
    assert errors(result).keys() == {"other/b"}


@pytest.mark.parametrize("outer", ["clean", "test"])
def test_a_folder_inside_the_other_is_not_scanned_with_it(run, tmp_path, outer):
    inner = tmp_path / "inner"
    outside = save(tmp_path / "a.png", photograph()).parent
    save(inner / "a.png", photograph())
    arguments = (outside, inner) if outer == "clean" else (inner, outside)
    result = run("score", *arguments, "--recursive", "--json")
    assert result.code == 0
    assert list(by_name(result)) == ["a"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (photograph(size=47), "47 x 47"),
        (photograph()[..., 0], "gray"),
        (np.dstack([photograph(), np.full((48, 48), 255, np.uint8)]), "alpha"),
    ],
)
def test_size_and_mode_mismatches_are_listed_and_the_rest_is_scored(run, folders, other, words):
    _, test = folders
    save(test / "b.png", other)
    result = run("score", *folders, "--json")
    assert result.code == 1
    assert list(by_name(result)) == ["a", "c"]
    assert words in errors(result)["b"]
    assert "b.png" in errors(result)["b"]


def test_an_unreadable_file_is_listed_and_the_rest_is_scored(run, folders):
    _, test = folders
    (test / "b.png").write_bytes(b"not a picture")
    result = run("score", *folders, "--json")
    assert result.code == 1
    assert list(by_name(result)) == ["a", "c"]
    assert "b.png" in errors(result)["b"]


def test_pictures_too_small_for_ssim_are_listed(run, tmp_path):
    tiny = photograph(size=10)
    files = save(tmp_path / "a.png", tiny), save(tmp_path / "b.png", tiny)
    result = run("score", *files, "--json")
    assert result.code == 1
    assert "b.png" in errors(result)["b.png"]
    assert "11 x 11" in errors(result)["b.png"]


def test_what_reading_left_out_is_warned_of(run, tmp_path):
    cmyk = Image.fromarray(photograph()).convert("CMYK")
    for name in ("a.jpg", "b.jpg"):
        cmyk.save(tmp_path / name)
    result = run("score", tmp_path / "a.jpg", tmp_path / "b.jpg", "--json")
    assert result.code == 0
    assert "a.jpg: CMYK" in result.stderr
    assert "b.jpg: CMYK" in result.stderr


def test_failures_are_told_to_people_on_stderr(run, folders):
    _, test = folders
    (test / "b.png").unlink()
    result = run("score", *folders)
    assert result.code == 1
    assert "b.png" in result.stderr
    assert "mean" in result.text


def test_the_table_shows_every_picture_the_mean_and_the_protocol(run, folders):
    result = run("score", *folders)
    scores = run("score", *folders, "--json").json
    shown = [*scores["pictures"][:2], scores["mean"]]
    for row in shown:
        assert f"{row['psnr']:.2f}" in result.text
        assert f"{row['ssim']:.4f}" in result.text
    assert "channel rgb, crop 0" in " ".join(result.text.split())


def test_csv_has_a_row_for_every_name(run, folders, tmp_path):
    _, test = folders
    (test / "b.png").unlink()
    result = run("score", *folders, "--csv", tmp_path / "scores.csv", "--json")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"a", "b", "c"}
    assert float(rows["a"]["psnr"]) == by_name(result)["a"]["psnr"]
    assert float(rows["a"]["ssim"]) == by_name(result)["a"]["ssim"]
    assert float(rows["c"]["psnr"]) == math.inf
    assert rows["b"]["psnr"] == ""
    assert "b.png" in rows["b"]["error"]
    assert [rows[name]["channel"] for name in "abc"] == ["rgb", "", "rgb"]
    assert rows["a"]["data_range"] == "255.0"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["scores.csv"]


def test_csv_writes_names_as_they_are(run, folders, tmp_path):
    name = os.fsdecode(b"bytes-\xff")
    for folder in folders:
        (folder / "a.png").rename(folder / f"{name}.png")
    assert run("score", *folders, "--csv", tmp_path / "scores.csv").code == 0
    assert b"\nbytes-\xff," in (tmp_path / "scores.csv").read_bytes()


def test_csv_goes_into_a_pipe(run, folders, tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert run("score", *folders, "--csv", pipe).code == 0
    reader.join(10)
    assert got[0].startswith(b"name,")
    assert got[0].count(b"\n") == 4


def test_csv_to_stdout_leaves_what_its_file_holds(folders, tmp_path):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    with log.open("a") as stdout:
        command = [sys.executable, "-m", "deconv_cli", "score", *folders, "--csv", "/dev/stdout"]
        subprocess.run(command, stdout=stdout, check=True)
    lines = log.read_text().split("\n")
    assert lines[0] == "earlier"
    assert any("channel rgb" in line for line in lines[1:-5])
    assert lines[-5].startswith("name,")


def test_a_link_that_leads_where_nobody_may_look_is_passed_over(run, folders, monkeypatch):
    look = os.stat

    def refuse(path, *arguments, **options):
        if str(path).endswith("link.png"):
            raise PermissionError(13, "Permission denied")
        return look(path, *arguments, **options)

    for folder in folders:
        (folder / "link.png").symlink_to("/forbidden/picture.png")
    monkeypatch.setattr(os, "stat", refuse)
    assert by_name(run("score", *folders, "--json")).keys() == {"a", "b", "c"}
    ran = run("score", folders[0] / "link.png", folders[1] / "a.png")
    assert ran.code == 2
    assert "link.png does not exist" in ran.stderr


def test_csv_never_replaces_a_picture(run, folders):
    _, test = folders
    before = (test / "a.png").read_bytes()
    result = run("score", *folders, "--csv", test / "a.png")
    assert result.code == 2
    assert (test / "a.png").read_bytes() == before


def test_fail_under(run, folders):
    mean = run("score", *folders, "--json").json["mean"]["psnr"]
    assert run("score", *folders, "--fail-under", str(mean - 0.01)).code == 0
    failed = run("score", *folders, "--fail-under", str(mean + 0.01), "--json")
    assert failed.code == 1
    assert f"{mean:.3f} dB" in failed.stderr
    assert failed.json["mean"]["psnr"] == mean
    assert run("score", *folders, "--fail-under", "nan").code == 2


def test_impossible_requests_do_nothing(run, folders, tmp_path):
    clean, test = folders
    for arguments in (
        (clean, clean),
        (clean / "a.png", clean / ".." / "clean" / "a.png"),
        (clean, tmp_path / "missing"),
        (clean, test / "a.png"),
        (clean / "a.png", test),
        (clean, test, "--channel", "grey"),
        (clean, test, "--crop", "-1"),
        (clean, test, "--csv", tmp_path / "missing" / "scores.csv"),
        (clean, test, "--csv", tmp_path),
    ):
        result = run("score", *arguments)
        assert result.code == 2, arguments
        assert result.stdout == b""
        assert result.stderr


def test_a_folder_without_pictures_is_no_picture_found(run, folders, tmp_path):
    clean, _ = folders
    (tmp_path / "empty").mkdir()
    assert run("score", clean, tmp_path / "empty").code == 3
    assert run("score", tmp_path / "empty", clean).code == 3


def test_json_is_strict(run, folders):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(run("score", *folders, "--json").text, parse_constant=refuse)
