"""Divide processors and memory among NUMA nodes: equal shares, in order."""

from typing import Final

from vmm.firmware.description import NumaNode

LOCAL, REMOTE = 10, 20
"""Distances in SLIT: ACPI fixes the first, the second says "twice as far"."""
GRAIN: Final = 2 << 20
"""Bytes: a node starts on a large page's border."""

Span = tuple[int, int]


def divide(nodes: int, cpus: int, ram: tuple[Span, ...]) -> tuple[NumaNode, ...]:
    """Return `nodes` nodes of `cpus` processors and the `ram` slots of (address, size) bytes.

    A node may be without processors, and the last one takes what is left over of the memory.
    """
    total = sum(size for _, size in ram)
    share = total // nodes // GRAIN * GRAIN
    edges = [node * share for node in range(nodes)] + [total]
    return tuple(
        NumaNode(
            tuple(range(cpus * node // nodes, cpus * (node + 1) // nodes)),
            _between(ram, edges[node], edges[node + 1]),
        )
        for node in range(nodes)
    )


def distances(nodes: int) -> tuple[tuple[int, ...], ...]:
    """Return SLIT's matrix of a machine in which every other node is equally far."""
    each = range(nodes)
    return tuple(tuple(LOCAL if a == b else REMOTE for b in each) for a in each)


def _between(ram: tuple[Span, ...], first: int, end: int) -> tuple[Span, ...]:
    """The addresses of bytes `first` to `end` - 1 of the memory, counted through the slots."""
    found, passed = [], 0
    for address, size in ram:
        low, high = max(first - passed, 0), min(end - passed, size)
        if low < high:
            found.append((address + low, address + high))
        passed += size
    return tuple(found)
