"""Each augmentation does what it says, and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from deconv_cli.degradation.camera import interpolate
from deconv_cli.tasks import find_task
from deconv_cli.training import augmentation
from deconv_cli.training.augmentation import RESTORATION
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import PictureSet, draw_batch

PICTURE = np.arange(24 * 24 * 3, dtype=np.uint16).reshape(24, 24, 3).astype(np.uint8)
seeds = st.integers(0, 2**31)


def windows(side):
    views = np.lib.stride_tricks.sliding_window_view(PICTURE, (side, side), axis=(0, 1))
    return {view.transpose(1, 2, 0).tobytes() for row in views for view in row}


WINDOWS = windows(8)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sets(st.sampled_from(["flip", "rotate", "colour"])))
def test_crops_are_windows_of_the_picture_moved_only_as_asked(seed, augment):
    patch = augmentation.cut_patch(PICTURE, 8, augment, np.random.default_rng(seed))
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] if "colour" in augment else [[0, 1, 2]]
    turns = range(4) if "rotate" in augment else range(1)
    mirrors = (0, 4) if "flip" in augment else (0,)
    undone = [
        np.rot90(patch[:, ::-1] if mirror else patch, -turn)[..., order].tobytes()
        for turn in turns
        for mirror in mirrors
        for order in orders
    ]
    assert WINDOWS & set(undone)


def test_the_eight_symmetries_are_eight():
    patch = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert len({augmentation.dihedral(patch, symmetry).tobytes() for symmetry in range(8)}) == 8


def test_scale_shows_up_to_twice_as_much_in_half_of_the_patches():
    """In a ramp the step from pixel to pixel tells how far the picture was shrunk."""
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[None, :, None], (128, 128, 3))
    rng = np.random.default_rng(0)
    steps = []
    for _ in range(200):
        patch = augmentation.cut_patch(ramp, 32, {"scale"}, rng).astype(float)
        steps.append((patch[0, 24, 0] - patch[0, 8, 0]) / 16)
    assert min(steps) == 1
    assert np.mean(np.array(steps) == 1) == pytest.approx(0.5, abs=0.1)
    assert max(steps) == pytest.approx(2, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_cutblur_takes_every_pixel_from_one_of_the_two(seed):
    rng = np.random.default_rng(seed)
    degraded, clean = np.zeros((16, 16, 3), np.float32), np.ones((16, 16, 3), np.float32)
    mixed = augmentation.cutblur(degraded, clean, rng)
    assert set(np.unique(mixed)) <= {0.0, 1.0}
    assert (mixed == mixed[..., :1]).all()
    assert degraded.max() == 0
    assert clean.min() == 1
    assert mixed.min() == 0 or mixed.max() == 1


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([1, 2, 3]))
def test_beyond_a_border_input_and_truth_are_mirrored_at_one_line(seed, scale):
    rng = np.random.default_rng(seed)
    degraded = rng.random((48, 48, 3), np.float32)
    clean = degraded.repeat(scale, 0).repeat(scale, 1)
    source, target = augmentation.mirror_border(degraded, clean, rng)
    assert np.array_equal(source.repeat(scale, 0).repeat(scale, 1), target)
    changed = (source != degraded).any(axis=2)
    if not changed.any():
        return
    turned = next(
        np.rot90(source, turn)
        for turn in range(4)
        if np.rot90(changed, turn)[0].all() and not np.rot90(changed, turn)[-1].any()
    )
    depth = next(d for d in (8, 16) if np.array_equal(turned[:d], turned[d : 2 * d][::-1]))
    assert changed.sum() == depth * 48


def test_a_quarter_of_the_pairs_get_a_border():
    rng = np.random.default_rng(0)
    patch = rng.random((24, 24, 3), np.float32)
    changed = [augmentation.mirror_border(patch, patch, rng)[0] is not patch for _ in range(1000)]
    assert sum(changed) == pytest.approx(250, abs=40)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_tilt_and_shift_keep_a_flat_picture_and_the_shape(seed):
    flat = np.full((16, 16, 3), 77, np.uint8)
    moved = augmentation.tilt_and_shift(flat, {"tilt", "shift"}, np.random.default_rng(seed))
    assert np.array_equal(moved, flat)
    assert np.array_equal(augmentation.tilt_and_shift(PICTURE, (), np.random.default_rng(seed)), PICTURE)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(data.astronaut()[:128, 150:300]).save(folder / "astronaut.png")
    Image.fromarray(data.coffee()[100:228, 200:350]).save(folder / "coffee.png")
    return PictureSet(sorted(folder.iterdir()), 24)


@pytest.mark.parametrize("name", RESTORATION)
def test_every_augmentation_changes_the_batch_and_stays_a_function_of_the_step(pictures, name, monkeypatch):
    for share in ("FLAT_SHARE", "TEXT_SHARE"):
        monkeypatch.setattr(augmentation, share, 0.5)
    plain = TrainConfig(widths=(4,), blocks=(1,), patch=24, batch=8, augment=(), gray_share=0, level_range=(10, 10))
    config, task = dataclasses.replace(plain, augment=(name,)), find_task("denoise")
    first, again = draw_batch(pictures, config, task, 3), draw_batch(pictures, config, task, 3)
    assert np.array_equal(first.degraded, again.degraded)
    assert not np.array_equal(first.degraded, draw_batch(pictures, plain, task, 3).degraded)
    assert first.clean.min() >= 0
    assert first.clean.max() <= 1
    error = (first.degraded - first.clean).std() * 255
    assert error < 9.7 if name in ("cutblur", "flat") else error == pytest.approx(10, rel=0.05)


def test_flat_patches_have_one_colour_or_two_and_are_often_saturated(monkeypatch):
    monkeypatch.setattr(augmentation, "FLAT_SHARE", 1)
    rng, patch = np.random.default_rng(0), np.full((12, 12, 3), 0.3, np.float32)
    drawn = [augmentation.flatten(patch, rng) for _ in range(200)]
    colours = [np.unique(each.reshape(-1, 3), axis=0) for each in drawn]
    assert {len(each) for each in colours} == {1, 2}
    assert all((each == each[:1]).all() or (each == each[:, :1]).all() for each in drawn)
    saturated = np.mean([np.isin(each, (0, 1)).mean() for each in colours])
    assert saturated == pytest.approx(augmentation.SATURATED_SHARE, abs=0.05)
    assert all(each.shape == patch.shape and each.dtype == patch.dtype for each in drawn)


def test_text_is_ink_on_paper_in_some_of_the_patches(monkeypatch):
    rng, patch = np.random.default_rng(0), np.full((64, 64, 3), 0.3, np.float32)
    changed = [augmentation.set_text(patch, rng) is not patch for _ in range(500)]
    assert sum(changed) == pytest.approx(500 * augmentation.TEXT_SHARE, abs=20)
    monkeypatch.setattr(augmentation, "TEXT_SHARE", 1)
    printed = [augmentation.set_text(patch, rng) for _ in range(50)]
    assert all(each.shape == patch.shape and each.dtype == patch.dtype for each in printed)
    # Between two colours, far enough apart to be read.
    assert min(np.ptp(each, axis=(0, 1)).max() for each in printed) > 0.2
    spread = [np.linalg.svd((each - each.mean((0, 1))).reshape(-1, 3), compute_uv=False) for each in printed]
    assert max(values[1] / values[0] for values in spread) < 1e-3


def test_text_is_as_much_larger_as_the_result(monkeypatch):
    monkeypatch.setattr(augmentation, "TEXT_SHARE", 1)
    patch = np.zeros((128, 128, 1), np.float32)

    def edges(scale):
        rng = np.random.default_rng(0)
        return np.mean([np.abs(np.diff(augmentation.set_text(patch, rng, scale), axis=1)).mean() for _ in range(40)])

    assert edges(1) / edges(3) > 2


def test_a_third_of_the_patches_are_blurred_and_stay_where_they_are(pictures):
    config = TrainConfig(widths=(4,), blocks=(1,), patch=16, batch=300, augment=("soften",), level_range=(10, 10))
    batch = draw_batch(pictures, config, find_task("denoise"), 0)
    sharp = draw_batch(pictures, dataclasses.replace(config, augment=()), find_task("denoise"), 0)
    assert (batch.degraded - batch.clean).std() * 255 == pytest.approx(10, rel=0.05)  # It is the truth that is blurred.
    rng = np.random.default_rng(0)
    patch = rng.random((64, 64, 1), np.float32)
    drawn = [augmentation.soften(patch, rng) for _ in range(300)]
    assert np.mean([each is not patch for each in drawn]) == pytest.approx(augmentation.SOFT_SHARE, abs=0.08)
    detail = [np.abs(np.diff(each, axis=0)).mean() / np.abs(np.diff(patch, axis=0)).mean() for each in drawn]
    assert 0.02 < min(detail) < 0.2
    assert max(detail) <= 1
    assert all(abs(each.mean() - patch.mean()) < 0.01 for each in drawn)
    assert batch.clean.std() < sharp.clean.std()


def test_a_third_of_the_patches_are_as_cameras_interpolate_them(pictures):
    config = TrainConfig(widths=(4,), blocks=(1,), patch=32, batch=100, augment=("mosaic",), level_range=(10, 10))
    batch = draw_batch(pictures, config, find_task("denoise"), 0)
    assert (batch.degraded - batch.clean).std() * 255 == pytest.approx(10, rel=0.05)  # The truth keeps the patterns.
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        patch = rng.random((32, 32, channels), np.float32)
        drawn = [augmentation.mosaic(patch, rng) for _ in range(500)]
        taken = [each for each in drawn if each is not patch]
        assert len(taken) / 500 == pytest.approx(augmentation.MOSAIC_SHARE, abs=0.08)
        assert all(each.shape == patch.shape and each.dtype == np.float32 for each in taken)
        assert min(each.min() for each in taken) >= 0
        assert max(each.max() for each in taken) <= 1


def test_a_camera_leaves_patterns_along_edges_alone():
    rng = np.random.default_rng(0)
    edge = np.full((32, 32, 3), (0.2, 0.5, 0.7), np.float32)
    assert np.abs(interpolate(edge, rng) - edge).max() < 1e-5
    edge[:, 16:] = (0.9, 0.3, 0.1)
    errors = np.abs([interpolate(edge, rng) - edge for _ in range(20)]).mean((0, 1, 3))
    assert errors[[15, 16]].min() > 0.02
    assert errors[[*range(13), *range(19, 32)]].max() < 1e-5


def test_some_of_the_patches_are_made_flat():
    rng, patch = np.random.default_rng(0), np.full((4, 4, 1), 0.3, np.float32)
    share = np.mean([augmentation.flatten(patch, rng) is not patch for _ in range(3000)])
    assert share == pytest.approx(augmentation.FLAT_SHARE, abs=0.01)


def test_half_of_the_flat_patches_are_not_degraded(pictures, monkeypatch):
    monkeypatch.setattr(augmentation, "FLAT_SHARE", 1)
    config = TrainConfig(widths=(4,), blocks=(1,), patch=8, batch=400, level_range=(10, 20), augment=("flat",))
    batch = draw_batch(pictures, config, find_task("denoise"), 0)
    untouched = (batch.degraded == batch.clean).all((1, 2, 3))
    assert untouched.mean() == pytest.approx(0.5, abs=0.1)
    assert batch.levels[untouched].min() >= 10
    enlarging = TrainConfig(widths=(4,), blocks=(1,), patch=8, batch=40, task="sr", scale=2, augment=("flat",))
    enlarged = draw_batch(pictures, enlarging, find_task("sr"), 0)
    assert enlarged.degraded.shape[1] == 4


def test_mixup_blends_clean_pictures_before_the_noise(pictures):
    config = TrainConfig(widths=(4,), blocks=(1,), patch=16, batch=64, augment=("mixup",), gray_share=0)
    plain = dataclasses.replace(config, augment=())
    mixed, unmixed = (draw_batch(pictures, c, find_task("denoise"), 0).clean for c in (config, plain))
    assert mixed.std() < unmixed.std()


def test_pairs_take_only_what_leaves_their_degradation_alone(run, tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    Image.fromarray(data.coffee()[:64, :64]).save(folder / "a.png")
    ran = run("train", folder, "--paired", folder, "--augment", "flip,mixup", "--out", tmp_path / "w.safetensors")
    assert ran.code == 2
    assert "mixup would change" in ran.stderr
