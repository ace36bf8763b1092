"""What a processor says of its speculation: IA32_ARCH_CAPABILITIES, bit by bit.

Names are Linux's ARCH_CAP_* in lower case (asm/msr-index.h); bits are from "IA32_ARCH_CAPABILITIES"
in the manual's tables of architectural MSRs and the vendor's advisories that added them.
"""

from collections.abc import Iterable

ARCH_CAPABILITIES: dict[str, int] = {
    "rdcl_no": 0,
    "ibrs_all": 1,
    "skip_vmentry_l1dflush": 3,
    "ssb_no": 4,
    "mds_no": 5,
    "pschange_mc_no": 6,
    "taa_no": 8,
    "sbdr_ssdp_no": 13,
    "fbsdp_no": 14,
    "psdp_no": 15,
    "bhi_no": 20,
    "gds_no": 26,
    "rfds_no": 27,
    "its_no": 62,
}

SPEC_CTRL_BITS: dict[str, int] = {"spec_ctrl": 0, "stibp": 1, "ssbd": 2}
"""The bit of IA32_SPEC_CTRL that each CPUID feature allows to be set."""


def arch_capabilities(names: Iterable[str]) -> int:
    """The MSR's value for these names."""
    return sum(1 << ARCH_CAPABILITIES[name] for name in names)


def spec_ctrl_mask(features: frozenset[str]) -> int:
    """Which bits of IA32_SPEC_CTRL a processor with these features has."""
    return sum(1 << bit for name, bit in SPEC_CTRL_BITS.items() if name in features)
