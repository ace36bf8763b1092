"""What a disk tells of itself: feature bits and configuration space."""

from struct import Struct
from typing import Final

from vmm.virtio.features import bits

SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, MQ, DISCARD, WRITE_ZEROES = 2, 5, 6, 9, 10, 12, 13, 14
"""Feature bits (virtio 1.2, "Block Device", "Feature bits")."""
WRITES: Final = frozenset((1, 11, 13))
"""Request types that the medium writes for: OUT, DISCARD, WRITE_ZEROES."""

MAX_DISCARD: Final = 1 << 22
"""Sectors of one range: 2 GiB."""
MAX_ZEROES: Final = 1 << 16
"""Sectors of one range: 32 MiB, which may have to be written."""
MAX_RANGES: Final = 32
_SECTOR: Final = 512
_PAGE: Final = 4096
# capacity, size_max, seg_max, geometry (cylinders, heads, sectors), blk_size, topology (exponent of
# the physical block, alignment, least and best size), writeback, unused, num_queues, discard (most
# sectors, most ranges, alignment), write zeroes (most sectors, most ranges, may unmap), unused
_CONFIG: Final = Struct("<QIIHBBIBBHIBBHIIIIIB3x")


def offered(*, read_only: bool, queues: int) -> int:
    """Return the device's feature bits."""
    mask = bits(SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY)
    mask |= bits(RO) if read_only else bits(DISCARD, WRITE_ZEROES)
    return mask | (bits(MQ) if queues > 1 else 0)


def config_space(size: int, queue_size: int, queues: int) -> bytes:
    """Return the configuration space of a disk of `size` bytes."""
    exponent = (_PAGE // _SECTOR).bit_length() - 1
    least, best = _PAGE // _SECTOR, (1 << 20) // _SECTOR
    return _CONFIG.pack(
        size // _SECTOR, 0, queue_size - 2, 0, 0, 0,
        _SECTOR, exponent, 0, least, best, 1, 0, queues,
        MAX_DISCARD, MAX_RANGES, _PAGE // _SECTOR, MAX_ZEROES, MAX_RANGES, 1,
    )  # fmt: skip
