"""What a guest's page tables mean: the mode they are read in, and who may use a page.

Manual: "Hierarchical Paging Structures", "Determination of Access Rights", "Protection Keys".
cext/walk.c does the same in the processor; the hypervisor has its own reading, as any has.
"""

from dataclasses import dataclass
from typing import Final

from hwmodel.arch.registers import Cr0, Cr4, Efer

P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX: Final = 1 << 63
ADDRESS: Final = (1 << 52) - 4096
PF_P, PF_W, PF_U, PF_RSVD, PF_FETCH, PF_PK = 1, 2, 4, 8, 16, 32
_LEVELS: Final = (48, 39, 30, 22, 21, 12)


@dataclass(frozen=True, slots=True)
class Access:
    """One access, as the page-fault error code tells of it; `ac` is RFLAGS.AC."""

    write: bool
    user: bool
    fetch: bool
    ac: bool


@dataclass(frozen=True, slots=True)
class Paging:
    """The registers that page tables are read with; `pdptes` are PAE's, else zeros."""

    cr0: Cr0
    cr3: int
    cr4: Cr4
    efer: Efer
    pdptes: tuple[int, int, int, int]
    physical_bits: int
    has_1g: bool

    @property
    def is_long(self) -> bool:
        """Four or five levels."""
        return bool(self.efer.lma)

    @property
    def entry_size(self) -> int:
        """Bytes of an entry."""
        return 8 if self.efer.lma or self.cr4.pae else 4

    @property
    def top(self) -> int:
        """Address bits below those that index the first table."""
        if self.efer.lma:
            return 48 if self.cr4.la57 else 39
        return 21 if self.cr4.pae else 22

    def reserved(self) -> dict[tuple[int, bool], int]:
        """Return the bits that must be 0 in an entry, by what it covers and whether it maps."""
        return {(at, leaf): self._reserved(at, leaf) for at in _LEVELS for leaf in (False, True)}

    def _reserved(self, shift: int, leaf: bool) -> int:
        beyond = (1 << 52) - (1 << self.physical_bits)
        if self.entry_size == 4:
            pse36 = 1 << 21 | (beyond >> 32 & 0xFF) << 13
            return pse36 if leaf and shift == 22 else 0
        mask = beyond | (0 if self.efer.nxe else NX)
        if not self.is_long:
            mask |= 0x7FF << 52
        if shift >= 39 or (shift == 30 and not self.has_1g):
            mask |= PS
        return mask | ((1 << shift) - (1 << 13) if leaf and shift > 12 else 0)


@dataclass(slots=True)
class Rights:
    """What the entries of a walk add up to."""

    user: bool = True
    write: bool = True
    nx: bool = False
    key: int = 0


def denial(p: Paging, r: Rights, access: Access, keys: tuple[int, int]) -> int | None:
    """Return the error-code bits of what forbids the access, None if nothing does.

    `keys` are PKRU and IA32_PKRS.
    """
    by_key = PF_PK if _key_forbids(p, r, access, keys) else 0
    return None if _mode_permits(p, r, access) and not by_key else PF_P | by_key


def _mode_permits(p: Paging, r: Rights, access: Access) -> bool:
    if access.user and not r.user:
        return False
    if access.fetch:
        return not r.nx and (access.user or not r.user or not p.cr4.smep)
    if not access.user and r.user and p.cr4.smap and not access.ac:
        return False
    return not access.write or r.write or (not access.user and not p.cr0.wp)


def _key_forbids(p: Paging, r: Rights, access: Access, keys: tuple[int, int]) -> bool:
    enabled = p.cr4.pke if r.user else p.cr4.pks
    if not enabled or access.fetch or not p.is_long:
        return False
    bits = (keys[0] if r.user else keys[1]) >> 2 * r.key
    checks_writes = (access.user and r.user) or p.cr0.wp
    return bool(bits & 1 or (bits & 2 and access.write and checks_writes))
