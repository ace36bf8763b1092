"""A short sample of what fuzz_devices does at length."""

from pathlib import Path

import pytest

from tests.vmm.virtio.fuzz_devices import Fuzz, makers

SEQUENCES = 400


@pytest.mark.parametrize("name", ["net", "console", "rng", "balloon", "fs"])
def test_random_drivers_break_nothing(tmp_path: Path, name: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    fuzz = Fuzz(makers(shared)[name], seed=1)
    for _ in range(SEQUENCES):
        fuzz.sequence()
    assert fuzz.complaints > 50  # some attacks were seen as such
    assert fuzz.worked > 50  # and some requests were served
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
