"""The entropy device: the same for the same seed, bounded, and dry when its file is."""

from pathlib import Path

import pytest

from tests.vmm.virtio.driven import Driven
from vmm.errors import UsageError
from vmm.virtio.rng import REQUEST_MAX, Entropy, FileEntropy, Rng, SeededEntropy


def driven(entropy: Entropy) -> Driven:
    return Driven(lambda context: Rng("rng", context, entropy))


def test_a_seed_decides_every_byte() -> None:
    first, again, other = (driven(SeededEntropy(seed)) for seed in (1, 1, 2))
    drawn = [first.ask(0, [], 64) for _ in range(3)]
    assert [again.ask(0, [], 64) for _ in range(3)] == drawn
    assert other.ask(0, [], 64) not in drawn
    assert len(set(drawn)) == 3
    ones = sum(byte.bit_count() for data in drawn for byte in data)
    assert 600 < ones < 936  # of 1536: six standard deviations


def test_going_back_draws_the_same_again() -> None:
    device = driven(SeededEntropy(5))
    state = device.device.save()
    drawn = device.ask(0, [], 32)
    state["queue0"] = device.device.save()["queue0"]
    device.device.restore(state)
    assert device.ask(0, [], 32) == drawn


def test_one_request_gets_so_much() -> None:
    assert len(driven(SeededEntropy(1)).ask(0, [], 3 * REQUEST_MAX)) == REQUEST_MAX


def test_a_file_is_drawn_until_it_is_dry(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    device = driven(FileEntropy(tmp_path / "noise", "--rng"))
    assert device.ask(0, [], 64) == b"noise"
    device.request(0, [], (64,))
    assert device.drivers[0].used() == []
    assert device.device.live


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: no such file or directory; name /dev"):
        FileEntropy(tmp_path / "none", "--rng")
    with pytest.raises(UsageError, match="cannot be read: is a directory"):
        FileEntropy(tmp_path, "--rng")
