"""HYPERVISOR_xen_version (public/version.h, public/features.h)."""

from struct import Struct
from typing import Final

from vmm.pv.xen.abi import HOLE_START, PAGE, Errno
from vmm.pv.xen.guest import Caller

_FEATURES: Final = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7
"""pae_pgdir_above_4gb, mmu_pt_update_preserve_ad, highmem_assist, gnttab_map_avail_bits."""
_TEXTS: Final = {
    1: b".0-ring1".ljust(16, b"\0"),
    2: b"ring1".ljust(64, b"\0") + b"ring1".ljust(80, b"\0"),
    3: b"xen-3.0-x86_64".ljust(1024, b"\0"),
    4: b"unavailable".ljust(64, b"\0"),
    8: bytes(range(16)),
}
"""Extra version, compile information, capabilities, changeset, handle (a UUID)."""
_INDEX: Final = Struct("<II")


def xen_version(cpu: Caller, arguments: tuple[int, ...]) -> int:
    """Answer; the version itself is the engine's affair."""
    command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
    if command in _TEXTS:
        cpu.write(at, _TEXTS[command])
        return 0
    if command == 5:
        cpu.write(at, HOLE_START.to_bytes(8, "little"))
        return 0
    if command == 6:
        index, _ = cpu.unpack(_INDEX, at)
        if index > 0:
            return -Errno.INVAL
        cpu.write(at + 4, _FEATURES.to_bytes(4, "little"))
        return 0
    if command == 7:
        return -Errno.INVAL if at else PAGE
    return -Errno.PERM if command == 9 else -Errno.NODATA if command == 10 else -Errno.NOSYS
