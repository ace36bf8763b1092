"""A sample of what `tests/vmm/virtio/fuzz.py` does at length, for each device and transport."""

from pathlib import Path

import pytest

from tests.vmm.virtio.fuzz import run
from tests.vmm.virtio.machine import BUSES
from tests.vmm.virtio.targets import NAMES, targets


@pytest.mark.parametrize("way", BUSES)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_driver_breaks_nothing(name: str, way: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    fuzzer = run(targets(shared)[name], way, seed=len(way), sequences=500)
    assert fuzzer.complaints > 20  # some attacks were seen as such
    assert fuzzer.served > 20  # and some requests were carried out
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_every_device_is_a_target(tmp_path: Path) -> None:
    assert tuple(targets(tmp_path)) == NAMES
