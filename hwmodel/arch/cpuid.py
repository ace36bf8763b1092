"""CPUID: what each leaf says, derived from a CPU model.

`Cpuid` is the table that a processor answers from. What a register changes at run time (OSXSAVE,
OSPKE, the APIC bit) is laid over it by `query`; leaves from 0x40000000 on are the hypervisor's to
fill.
"""

from dataclasses import dataclass
from typing import NamedTuple

from hwmodel.arch.features import BY_NAME, FEATURES
from hwmodel.arch.model import Cache, CpuModel
from hwmodel.arch.registers import Cr4, Efer

MHZ = 1_000_000
_EXTENDED = 15  # families from here on have a second field
HIGHEST_BASIC = 0x16
HIGHEST_EXTENDED = 0x80000008
BY_SUBLEAF = frozenset({0x4, 0x7, 0xB, 0xD})
"""The leaves whose answer depends on ECX."""

_CR4_NEEDS = {
    "tsd": "tsc",
    "osfxsr": "fxsr",
    "osxmmexcpt": "sse",
    "pcide": "pcid",
    "pke": "pku",
    "osxsave": "xsave",
    "vmxe": "vmx",
    "smxe": "smx",
    "cet": "shstk",
    "pvi": "vme",
}
"""The feature that a bit of CR4 belongs to, where it has another name."""
_CR4_BITS = [name for name in Cr4.layout if name != "pce"]  # every part with RDPMC has PCE


class Leaf(NamedTuple):
    """The four registers that CPUID returns."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


@dataclass(frozen=True, slots=True)
class Cpuid:
    """What CPUID answers on each logical processor of a model."""

    model: CpuModel
    cpus: int
    leaves: dict[tuple[int, int], Leaf]

    @classmethod
    def of(cls, model: CpuModel, cpus: int = 1) -> "Cpuid":
        """The answers of a package of `cpus` logical processors, one to a core."""
        leaves = {
            **_basic(model, cpus),
            **_caches(model, cpus),
            **_extended(model),
        }
        for leaf, subleaf in {(f.leaf, f.subleaf) for f in FEATURES}:
            seen = leaves.get((leaf, subleaf), Leaf())
            said = feature_bits(model.features, leaf, subleaf)
            leaves[leaf, subleaf] = Leaf(*(a | b for a, b in zip(seen, said, strict=True)))
        return cls(model, cpus, leaves)

    def query(
        self,
        leaf: int,
        subleaf: int = 0,
        *,
        apic_id: int = 0,
        cr4: int = 0,
        apic_enabled: bool = True,
    ) -> Leaf:
        """What CPUID returns for EAX=`leaf`, ECX=`subleaf` on the processor with this APIC id.

        A leaf above the highest of its range answers as the highest basic leaf does; the range
        0x40000000 to 0x4fffffff answers nothing, since it is the hypervisor's.
        """
        if 0x40000000 <= leaf <= 0x4FFFFFFF:
            return Leaf()
        if leaf > (HIGHEST_EXTENDED if leaf >= 0x80000000 else HIGHEST_BASIC):
            leaf = HIGHEST_BASIC
        answer = self.leaves.get((leaf, subleaf if leaf in BY_SUBLEAF else 0), Leaf())
        if leaf == 7 and subleaf == 0 and Cr4(cr4).pke:
            return answer._replace(ecx=answer.ecx | bit("ospke"))
        if leaf == 1:
            return self._personal(answer, apic_id, Cr4(cr4), apic_enabled)
        if leaf == 0xB:
            return answer._replace(ecx=answer.ecx | subleaf & 0xFF, edx=apic_id)
        return answer

    def _personal(self, answer: Leaf, apic_id: int, cr4: Cr4, apic_enabled: bool) -> Leaf:
        osxsave = bit("osxsave") if cr4.osxsave else 0
        apic = 0 if apic_enabled else bit("apic")
        return answer._replace(
            ebx=answer.ebx | apic_id << 24, ecx=answer.ecx | osxsave, edx=answer.edx & ~apic
        )


def bit(feature: str) -> int:
    """The mask of a feature in its register."""
    return 1 << BY_NAME[feature].bit


def feature_bits(features: frozenset[str], leaf: int, subleaf: int = 0) -> Leaf:
    """The registers of one leaf with just the bits of these features."""
    said = dict.fromkeys(Leaf._fields, 0)
    for feature in FEATURES:
        if (feature.leaf, feature.subleaf) == (leaf, subleaf) and feature.name in features:
            said[feature.register] |= 1 << feature.bit
    return Leaf(**said)


def signature(model: CpuModel) -> int:
    """Leaf 1's EAX: stepping, model and family ("Version Information")."""
    family = min(model.family, _EXTENDED)
    low = family << 8 | (model.model & 0xF) << 4 | model.stepping
    return (model.family - family) << 20 | model.model >> 4 << 16 | low


def supported_cr4(model: CpuModel) -> Cr4:
    """The bits of CR4 that the model has; setting another one is #GP."""
    return Cr4.of(
        pce=True, **{name: _CR4_NEEDS.get(name, name) in model.features for name in _CR4_BITS}
    )


def supported_efer(model: CpuModel) -> Efer:
    """The bits of EFER that the model has; setting another one is #GP."""
    has = model.features.__contains__
    return Efer.of(sce=has("syscall"), lme=has("lm"), lma=has("lm"), nxe=has("nx"), svme=has("svm"))


def _basic(model: CpuModel, cpus: int) -> dict[tuple[int, int], Leaf]:
    """Leaves 0 to 0x16, but for caches and features."""
    b, d, c = _words(model.vendor.encode())
    multi = bit("ht") if cpus > 1 else 0
    line_in_qwords = 8 << 8 if "clflush" in model.features else 0
    ratio = model.tsc_hz // model.crystal_hz
    base = model.tsc_hz // MHZ
    return {
        (0, 0): Leaf(HIGHEST_BASIC, b, c, d),
        (1, 0): Leaf(signature(model), _ids(cpus) << 16 | line_in_qwords, 0, multi),
        (2, 0): Leaf(eax=0xFF01),  # descriptor 0xff: ask leaf 4
        (7, 0): Leaf(),
        (0xB, 0): Leaf(0, 1, 1 << 8),  # one logical processor to a core
        (0xB, 1): Leaf((_ids(cpus) - 1).bit_length(), cpus, 2 << 8),
        (0x15, 0): Leaf(1, ratio, model.crystal_hz),
        (0x16, 0): Leaf(base, base, model.bus_hz // MHZ),
    }


def _extended(model: CpuModel) -> dict[tuple[int, int], Leaf]:
    """Leaves 0x80000000 to 0x80000008, but for features."""
    brand = _words(model.brand.encode().ljust(48, b"\0"))
    second = next((cache for cache in model.caches if cache.level == 2), None)
    return {
        (0x80000000, 0): Leaf(HIGHEST_EXTENDED),
        (0x80000002, 0): Leaf(*brand[0:4]),
        (0x80000003, 0): Leaf(*brand[4:8]),
        (0x80000004, 0): Leaf(*brand[8:12]),
        (0x80000006, 0): Leaf(ecx=_level2(second) if second else 0),
        (0x80000008, 0): Leaf(model.linear_bits << 8 | model.physical_bits),
    }


def _caches(model: CpuModel, cpus: int) -> dict[tuple[int, int], Leaf]:
    """Leaf 4, "Deterministic Cache Parameters": every count is stored less one."""
    cores = _ids(cpus) - 1
    return {
        (4, index): Leaf(
            cores << 26
            | (cores if cache.shared else 0) << 14
            | 1 << 8
            | cache.level << 5
            | cache.kind,
            cache.ways - 1 << 22 | cache.line - 1,
            cache.sets - 1,
        )
        for index, cache in enumerate(model.caches)
    }


def _level2(cache: Cache) -> int:
    """Leaf 0x80000006's ECX: KiB, associativity as an exponent code, line size."""
    codes = {1: 1, 2: 2, 4: 4, 8: 6, 16: 8, 32: 10, 48: 11}  # from so many ways on
    code = codes[max(ways for ways in codes if ways <= cache.ways)]
    return cache.size >> 10 << 16 | code << 12 | cache.line


def _ids(cpus: int) -> int:
    """How many APIC ids a package of so many processors takes: the next power of two."""
    return 1 << (cpus - 1).bit_length()


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4)]
