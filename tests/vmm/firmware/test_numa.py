"""Nodes cover every processor and every byte once."""

import pytest

from vmm import VM
from vmm.config import Config
from vmm.errors import UsageError
from vmm.firmware.numa import distances, divide

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize("nodes", [1, 2, 3, 8])
@pytest.mark.parametrize("cpus", [1, 4, 16])
@pytest.mark.parametrize("ram", [((0, 256 * MIB),), ((0, 3 * GIB), (4 * GIB, 5 * GIB))])
def test_shares(nodes: int, cpus: int, ram: tuple[tuple[int, int], ...]) -> None:
    made = divide(nodes, cpus, ram)
    assert len(made) == nodes
    assert [cpu for node in made for cpu in node.cpus] == list(range(cpus))
    spans = [span for node in made for span in node.memory]
    assert spans == sorted(spans)
    assert sum(end - start for start, end in spans) == sum(size for _, size in ram)
    assert all(any(a <= start and end <= a + s for a, s in ram) for start, end in spans)
    sizes = [sum(end - start for start, end in node.memory) for node in made]
    assert max(sizes) - min(sizes) <= nodes * 2 * MIB


def test_a_node_may_lie_on_both_sides_of_the_hole() -> None:
    both = divide(2, 2, ((0, 3 * GIB), (4 * GIB, 5 * GIB)))
    assert both[0].memory == ((0, 3 * GIB), (4 * GIB, 5 * GIB))
    assert both[1].memory == ((5 * GIB, 9 * GIB),)


def test_distances() -> None:
    assert distances(2) == ((10, 20), (20, 10))


def test_the_option_puts_tables_into_memory() -> None:
    with VM(memory="64M", numa=2) as vm, VM(memory="64M") as plain:
        tables, without = vm.memory.read(0xE0000, 0x4000), plain.memory.read(0xE0000, 0x4000)
    assert (tables.count(b"SRAT"), tables.count(b"SLIT")) == (1, 1)
    assert (without.count(b"SRAT"), without.count(b"SLIT")) == (0, 0)


@pytest.mark.parametrize(
    ("numa", "memory", "words"),
    [("0", "64M", "--numa 0"), ("9", "64M", "--numa 9"), ("x", "64M", "--numa 'x'"),
     ("8", "4M", "--numa 8")],
)  # fmt: skip
def test_what_cannot_be_is_refused(numa: str, memory: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Config.of(numa=numa, memory=memory)
