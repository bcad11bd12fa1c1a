"""A share of the fuzzing in `fuzz_readers.py`: no damage may do more than fail with a clear error."""

from __future__ import annotations

import importlib.util
import warnings
from itertools import islice
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("fuzz_readers", Path(__file__).with_name("fuzz_readers.py"))
fuzz_readers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz_readers)

SAMPLES = fuzz_readers.samples()


@pytest.mark.parametrize("kind", SAMPLES)
def test_undamaged_samples_are_pictures(kind):
    assert fuzz_readers.read(SAMPLES[kind]) == "picture"


@pytest.mark.parametrize("seed", range(3))
def test_damage_gives_a_picture_or_a_one_line_error(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in islice(fuzz_readers.cases(100 + seed), 10 * len(SAMPLES)):
            found = fuzz_readers.read(data)
            assert found in ("picture", "error"), name
