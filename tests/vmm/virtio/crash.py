"""A guest that writes to a disk for ever, to be killed; and what may be on the disk afterwards.

    python -m tests.vmm.virtio.crash IMAGE SEED      says the number of each flush that has ended

The writes follow from the seed, so that whoever kills it knows what must be there.
"""

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECTORS = 4096
LONGEST = 48


class Write(NamedTuple):
    """Sectors that get a new version; version 0 is zeroes, None a flush."""

    sector: int
    length: int
    version: int


def actions(seed: int) -> Iterator[Write | None]:
    """Yield what the guest does: writes, write-zeroes (version 0), flushes (None)."""
    dice = random.Random(seed)
    version = 0
    while True:
        version += 1
        count = dice.randint(1, LONGEST)
        sector = dice.randrange(SECTORS - count)
        yield Write(sector, count, 0 if dice.random() < 0.1 else version)
        if dice.random() < 0.12:
            yield None


def content(sector: int, version: int) -> bytes:
    """Return what a version of a sector looks like."""
    return struct.pack("<IQ", sector, version).ljust(512, b"%") if version else bytes(512)


def allowed(seed: int, flushes: int) -> dict[int, set[bytes]]:
    """Return what each sector may hold after `flushes` flushes were seen to end.

    What was written before the last of them, or anything written to that sector since; the guest
    was not farther than the next flush.
    """
    may: dict[int, set[bytes]] = {}
    seen = 0
    for action in actions(seed):
        if action is None:
            seen += 1
            if seen > flushes:
                return may
            continue
        for sector in range(action.sector, action.sector + action.length):
            new = content(sector, action.version)
            may[sector] = {new} if seen < flushes else may.get(sector, {bytes(512)}) | {new}
    return may


def torture(path: Path, seed: int) -> None:
    """Be the guest."""
    from tests.vmm.virtio.disk import FLUSH, WRITE_ZEROES, DiskDriver
    from tests.vmm.virtio.machine import Machine, MmioBus
    from vmm.storage.opening import open_image
    from vmm.virtio.blk import Blk
    from vmm.virtio.blk_timing import TIMINGS

    machine = Machine()
    blk = Blk("disk0", machine.context, open_image(path), TIMINGS["ssd"])
    driver = DiskDriver(machine, MmioBus(machine, blk))
    flushes = 0
    for action in actions(seed):
        if action is None:
            assert driver.request(FLUSH) == (0, b"")
            flushes += 1
            sys.stdout.write(f"{flushes}\n")
            sys.stdout.flush()
        elif action.version:
            sectors = range(action.sector, action.sector + action.length)
            driver.write(action.sector, b"".join(content(s, action.version) for s in sectors))
        else:
            ranges = struct.pack("<QII", action.sector, action.length, 1)
            assert driver.request(WRITE_ZEROES, out=ranges) == (0, b"")


if __name__ == "__main__":
    torture(Path(sys.argv[1]), int(sys.argv[2]))
