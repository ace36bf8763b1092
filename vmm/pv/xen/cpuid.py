"""What CPUID tells a PV guest: Xen's leaves, and features that ring 3 cannot have.

Xen docs/misc/... public/arch-x86/cpuid.h; the features that Xen hides from PV guests are those of
xen/include/public/arch-x86/cpufeatureset.h without "PV" marks.
"""

from collections.abc import Mapping
from struct import unpack
from typing import Final

from vmm.pv.dialect import Leaf
from vmm.pv.xen.abi import VERSION

HIDDEN: Final = frozenset(
    {
        "pcid", "invpcid", "smep", "smap", "umip", "pku", "pks", "la57", "vmx", "x2apic",
        "fsgsbase", "tsc_deadline", "mtrr", "pge", "pse36", "pse", "vme", "pdpe1gb", "monitor",
        "tsc_adjust", "acpi", "mce", "mca",
    }
)  # fmt: skip
_SIGNATURE: Final = unpack("<3I", b"XenVMMXenVMM")
HYPERCALL_MSR: Final = 0x4000_0000
MACHINE_BITS: Final = 46


def leaves(base: int, tsc_hz: int) -> Mapping[int, Leaf]:
    """Return the leaves from `base` on."""
    major, minor = VERSION
    return {
        base: Leaf(base + 5, *_SIGNATURE),
        base + 1: Leaf(major << 16 | minor),
        base + 2: Leaf(1, HYPERCALL_MSR, 1),
        base + 3: Leaf(1 << 1, 0, tsc_hz // 1000, 0),
        base + 4: Leaf(),
        base + 5: Leaf(0, MACHINE_BITS),
    }
