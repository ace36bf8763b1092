"""An audit that knows nothing of the engine's counts: it walks the tables from the roots."""

import struct

from tests.vmm.pv.xen.calls import PvGuest

PAGE, FRAME = 4096, (1 << 52) - 4096
PRESENT, WRITABLE = 1, 2
PINNED, SHARED = 2, 4
HOLE = range(256, 272)


def _entries(guest: PvGuest, mfn: int) -> tuple[int, ...]:
    return struct.unpack("<512Q", guest.vm.memory.ram.view[mfn * PAGE : (mfn + 1) * PAGE])


def audit(guest: PvGuest) -> list[str]:
    """Return what is wrong: tables that are writable, frames that are nobody's, forged slots."""
    frames, found = guest.domain.engine.frames, []
    seen: dict[int, int] = {}
    roots = [guest.vm.vcpus[0].regs.cr3 // PAGE]
    work = [(root, 4) for root in roots]
    for mfn in range(frames):
        frame = guest.engine.frame(mfn)
        if frame is not None and frame.flags & PINNED:
            work.append((mfn, frame.type))
    writable: set[int] = set()
    while work:
        mfn, level = work.pop()
        if mfn in seen:
            if seen[mfn] != level:
                found.append(f"frame {mfn:#x} is a table of levels {seen[mfn]} and {level}")
            continue
        seen[mfn] = level
        for index, entry in enumerate(_entries(guest, mfn)):
            if not entry & PRESENT or (level == 4 and index in HOLE):
                continue
            target = (entry & FRAME) // PAGE
            frame = guest.engine.frame(target)
            if frame is None or (target >= frames and not frame.flags & SHARED):
                found.append(f"table {mfn:#x} entry {index} maps {entry:#x}")
            elif level > 1:
                work.append((target, level - 1))
            elif entry & WRITABLE:
                writable.add(target)
    found += [f"table {mfn:#x} is mapped writable" for mfn in writable & seen.keys()]
    return found
