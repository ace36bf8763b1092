"""The hypervisor's walk of the guest's page tables, with their accessed and dirty flags."""

from dataclasses import dataclass, field
from typing import Final

from hwmodel.mem.ram import PAGE
from vmm.memory.guest import GuestMemory
from vmm.memory.shadow.paging import (
    ADDRESS,
    NX,
    PF_FETCH,
    PF_P,
    PF_RSVD,
    PF_U,
    PF_W,
    PS,
    A,
    Access,
    D,
    P,
    Paging,
    Rights,
    U,
    W,
    denial,
)


@dataclass(frozen=True, slots=True)
class Denied:
    """The guest's tables do not allow it: the page-fault error code."""

    error: int


@dataclass(frozen=True, slots=True)
class Unbacked:
    """A table lies where no memory is, or where it is swapped out."""

    gpa: int


@dataclass(slots=True)
class Step:
    """One entry used: the address bits below those that index it, its place, its value."""

    shift: int
    hpa: int
    entry: int


@dataclass(slots=True)
class Found:
    """A walk to its end; `gpa` is the address itself, the last step maps 1 << `shift` bytes."""

    gpa: int
    steps: list[Step]
    rights: Rights = field(default_factory=Rights)


class GuestWalker:
    """Walks one VM's page tables in machine memory."""

    def __init__(self, memory: GuestMemory) -> None:
        """Look at `memory`; nothing is kept between walks."""
        self._memory: Final = memory
        self._quads: Final = memory.ram.view.cast("Q")
        self._words: Final = memory.ram.view.cast("I")
        self._paging: Paging | None = None
        self._reserved: dict[tuple[int, bool], int] = {}

    def entry_at(self, hpa: int, size: int) -> int:
        """Return an entry of `size` bytes."""
        return self._quads[hpa >> 3] if size == 8 else self._words[hpa >> 2]

    def walk(
        self, p: Paging, linear: int, access: Access, keys: tuple[int, int]
    ) -> Found | Denied | Unbacked:
        """Translate, with the guest's checks; flags are set if the access is allowed."""
        got = self._descend(p, linear)
        if isinstance(got, Found):
            cause = denial(p, got.rights, access, keys)
            if cause is None:
                self._set_flags(got, access.write)
                return got
            got = Denied(cause)
        return Denied(got.error | _error_of(p, access)) if isinstance(got, Denied) else got

    def look(self, p: Paging, linear: int) -> Found | Denied | Unbacked:
        """Translate for a debugger: whatever the rights, and nothing changes."""
        return self._descend(p, linear)

    def _descend(self, p: Paging, linear: int) -> Found | Denied | Unbacked:
        size, shift, table, rights = p.entry_size, p.top, p.cr3, Rights()
        bits, address = (9, ADDRESS) if size == 8 else (10, 0xFFFF_F000)
        if size == 8 and not p.is_long:
            table = p.pdptes[linear >> 30 & 3]
            if not table & P:
                return Denied(0)
        if p is not self._paging:
            self._paging, self._reserved = p, p.reserved()
        reserved, steps = self._reserved, list[Step]()
        while True:
            gpa = (table & address) + (linear >> shift & (1 << bits) - 1) * size
            hpa = self._memory.hpa(gpa, size)
            if hpa is None or gpa & -PAGE in self._memory.absent:
                return Unbacked(gpa)
            entry = self.entry_at(hpa, size)
            leaf = shift == 12 or bool(entry & PS and shift < 39 and (size == 8 or p.cr4.pse))
            if not entry & P or entry & reserved[shift, leaf]:
                return Denied(PF_P | PF_RSVD if entry & P else 0)
            _narrow(rights, entry)
            steps.append(Step(shift, hpa, entry))
            if leaf:
                rights.key = entry >> 59 & 15
                return Found(
                    _address(entry, shift, size) | linear & (1 << shift) - 1, steps, rights
                )
            table, shift = entry, shift - bits

    def _set_flags(self, found: Found, write: bool) -> None:
        last = found.steps[-1]
        for step in found.steps:
            flags = A | D if write and step is last else A
            if step.entry & flags != flags:
                step.entry |= flags
                self._words[step.hpa >> 2] |= flags
                self._memory.wrote_flags(step.hpa)


def _error_of(p: Paging, access: Access) -> int:
    fetches = access.fetch and (p.efer.nxe or p.cr4.smep)
    return access.write * PF_W | access.user * PF_U | (PF_FETCH if fetches else 0)


def _narrow(rights: Rights, entry: int) -> None:
    rights.user = rights.user and bool(entry & U)
    rights.write = rights.write and bool(entry & W)
    rights.nx = rights.nx or bool(entry & NX)


def _address(entry: int, shift: int, size: int) -> int:
    if size == 4 and shift == 22:
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
    return entry & (ADDRESS if size == 8 else 0xFFFF_F000) & -(1 << shift)
