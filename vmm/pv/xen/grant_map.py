"""A guest that maps what it granted to itself (public/grant_table.h; xen/common/grant_table.c).

No other domain lets this one use a frame: the first domain's table is empty, others there are none.
A mapping is an entry of the guest's own page tables, and holds the frame for the grant besides.
"""

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from hwmodel.cpu.xen import XenEngine
from vmm.pv.xen.abi import BACKEND_DOMID, DOMID_SELF, OWN_DOMID, PAGE
from vmm.pv.xen.grants import (
    BAD_DOMAIN,
    BAD_GNTREF,
    GENERAL_ERROR,
    OKAY,
    PERMIT_ACCESS,
    READ_ONLY,
    GrantTable,
)
from vmm.pv.xen.guest import GuestCpu
from vmm.pv.xen.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_HANDLE, PERMISSION_DENIED, BAD_COPY, AGAIN = -4, -8, -10, -12
_DEVICE, _HOST, _READONLY, _APPLICATION, _PTE = (1 << n for n in range(5))  # GNTMAP_*
_MAP: Final = Struct("<QIIHhIQ")
_UNMAP: Final = Struct("<QQIh2x")
_COPY: Final = Struct("<QHH4xQHH4xHHh2x")
_SWAP: Final = Struct("<IIh2x")
_SOURCE_GREF, _DEST_GREF = 1, 2
_P, _RW, _USER, _AD = 1, 2, 4, 0x60
_FRAME: Final = (1 << 52) - PAGE
_MOST: Final = 4096  # at one call


@dataclass(slots=True)
class Mapping:
    """What a handle stands for: `flags` are GNTMAP_* of what is still mapped."""

    reference: int
    page: int
    flags: int

    @property
    def writable(self) -> bool:
        """Whether it may be written to."""
        return not self.flags & _READONLY


class GrantMaps:
    """The operations; each takes one structure and returns its status."""

    def __init__(self, engine: XenEngine, shared: Shared, table: GrantTable) -> None:
        """Nothing is mapped."""
        self._engine: Final = engine
        self._shared: Final = shared
        self._table: Final = table
        self._mappings: dict[int, Mapping] = {}
        self._operations: Final[dict[int, tuple[int, Callable[[GuestCpu, int], None]]]] = {
            0: (_MAP.size, self._map), 1: (_UNMAP.size, self._unmap), 5: (_COPY.size, self._copy),
            7: (_UNMAP.size, self._replace), 11: (_SWAP.size, self._swap),
        }  # fmt: skip

    def carry_out(self, cpu: Any, command: int, at: int, count: int) -> bool:
        """Carry a list out, if it is of these operations."""
        if command not in self._operations:
            return False
        size, operation = self._operations[command]
        for number in range(min(count, _MOST)):
            operation(cpu, at + number * size)
        return True

    # ---- mapping ----

    def _map(self, cpu: GuestCpu, at: int) -> None:
        address, flags, reference, domain, *_ = cpu.unpack(_MAP, at)
        status, handle, bus = self._try_map(cpu, address, flags, reference, domain)
        cpu.write(at, _MAP.pack(address, flags, reference, domain, status, handle, bus))

    def _try_map(
        self, cpu: GuestCpu, address: int, flags: int, reference: int, domain: int
    ) -> tuple[int, int, int]:
        """Return status, handle, bus address."""
        if not flags & (_DEVICE | _HOST):
            return BAD_GNTREF, 0, 0
        if status := self._wrong_domain(domain) or self._wrong_entry(reference):
            return status, 0, 0
        writable = not flags & _READONLY
        page = self._table.take(reference, writable=writable, domain=OWN_DOMID)
        if page is None:
            return GENERAL_ERROR, 0, 0
        mapping = Mapping(reference, page, flags)
        if flags & _HOST and not self._enter(cpu, address, mapping):
            self._table.give_back(reference, page, writable=writable)
            return GENERAL_ERROR, 0, 0
        handle = next(n for n in range(len(self._mappings) + 1) if n not in self._mappings)
        self._mappings[handle] = mapping
        return OKAY, handle, page

    @staticmethod
    def _wrong_domain(domain: int) -> int:
        if domain == OWN_DOMID:
            return OKAY
        return GENERAL_ERROR if domain == BACKEND_DOMID else BAD_DOMAIN

    def _wrong_entry(self, reference: int) -> int:
        return OKAY if self._table.exists(reference) else BAD_GNTREF

    def _place(self, cpu: GuestCpu, address: int, flags: int) -> int | None:
        """Return the machine address of the entry that is meant."""
        if flags & _PTE:
            return None if address % 8 else address
        return self._engine.l1_entry(cpu.vmcs.native, address)

    def _enter(self, cpu: GuestCpu, address: int, mapping: Mapping) -> bool:
        place = self._place(cpu, address, mapping.flags)
        user = _USER if mapping.flags & _APPLICATION else 0
        entry = mapping.page | _P | _AD | user | (_RW if mapping.writable else 0)
        return place is not None and self._engine.set_l1_entry(cpu.vmcs.native, place, entry)

    # ---- unmapping ----

    def _unmap(self, cpu: GuestCpu, at: int) -> None:
        address, bus, handle, _ = cpu.unpack(_UNMAP, at)
        status = self._try_unmap(cpu, address, bus, handle, None)
        cpu.write(at, _UNMAP.pack(address, bus, handle, status))

    def _replace(self, cpu: GuestCpu, at: int) -> None:
        address, new, handle, _ = cpu.unpack(_UNMAP, at)
        status = self._try_unmap(cpu, address, 0, handle, new)
        cpu.write(at, _UNMAP.pack(address, new, handle, status))

    def _try_unmap(
        self, cpu: GuestCpu, address: int, bus: int, handle: int, new: int | None
    ) -> int:
        mapping = self._mappings.get(handle)
        if mapping is None:
            return BAD_HANDLE
        if bus and (not mapping.flags & _DEVICE or bus != mapping.page):
            return GENERAL_ERROR
        if address and mapping.flags & _HOST:
            if not self._leave(cpu, address, mapping, new):
                return GENERAL_ERROR
            mapping.flags &= ~_HOST
        if bus:
            mapping.flags &= ~_DEVICE
        if not mapping.flags & (_HOST | _DEVICE):
            self._table.give_back(mapping.reference, mapping.page, writable=mapping.writable)
            del self._mappings[handle]
        return OKAY

    def _leave(self, cpu: GuestCpu, address: int, mapping: Mapping, new: int | None) -> bool:
        """Take the entry away, or put that of `new` there, if it is what was entered."""
        place, native = self._place(cpu, address, mapping.flags), cpu.vmcs.native
        if place is None or not self._engine.is_owned(place // PAGE):
            return False
        entry = self._shared.read(place, 8)
        if not entry & _P or entry & _FRAME != mapping.page:
            return False
        if bool(entry & _RW) != mapping.writable:
            return False
        if new is None:
            return self._engine.set_l1_entry(native, place, 0)
        other = self._engine.l1_entry(native, new)
        if mapping.flags & _PTE or other is None:
            return False
        moved = self._engine.set_l1_entry(native, place, self._shared.read(other, 8))
        return moved and self._engine.set_l1_entry(native, other, 0)

    # ---- copying ----

    def _copy(self, cpu: GuestCpu, at: int) -> None:
        fields = cpu.unpack(_COPY, at)
        cpu.write(at, _COPY.pack(*fields[:-1], self._try_copy(*fields[:-1])))

    def _try_copy(
        self, source: int, giver: int, start: int, target: int, taker: int, end: int, size: int,
        flags: int,
    ) -> int:  # fmt: skip
        if start + size > PAGE or end + size > PAGE:
            return BAD_COPY
        read, status = self._lend(source, giver, flags & _SOURCE_GREF, writable=False)
        if read is None:
            return status
        write, status = self._lend(target, taker, flags & _DEST_GREF, writable=True)
        if write is not None:
            self._shared.store(write + end, self._shared.load(read + start, size))
            self._engine.drop(write // PAGE, writable=True)
        self._engine.drop(read // PAGE, writable=False)
        return status

    def _lend(
        self, number: int, domain: int, granted: int, *, writable: bool
    ) -> tuple[int | None, int]:
        """Return the page of a frame or a grant, held; or None with the status."""
        frame = number
        if not granted and domain != DOMID_SELF:
            return None, PERMISSION_DENIED
        if granted:
            if domain != DOMID_SELF and (status := self._wrong_domain(domain)):
                return None, status
            entry = self._table.entry(number & 0xFFFF_FFFF)
            if entry is None:
                return None, BAD_GNTREF
            rights, to, frame = entry
            allowed = rights & 3 == PERMIT_ACCESS and to == OWN_DOMID
            if not allowed or (writable and rights & READ_ONLY):
                return None, GENERAL_ERROR
        if not self._engine.hold(frame, writable=writable):
            return None, GENERAL_ERROR
        return frame * PAGE, OKAY

    def _swap(self, cpu: GuestCpu, at: int) -> None:
        one, other, _ = cpu.unpack(_SWAP, at)
        if not (self._table.exists(one) and self._table.exists(other)):
            status = BAD_GNTREF
        elif self._table.is_used(one) or self._table.is_used(other):
            status = AGAIN
        else:
            status = OKAY
            self._table.swap(one, other)
        cpu.write(at, _SWAP.pack(one, other, status))

    # ---- state ----

    def save(self) -> list[list[int]]:
        """Every mapping."""
        return [[n, m.reference, m.page, m.flags] for n, m in sorted(self._mappings.items())]

    def restore(self, state: Any) -> None:
        """Take over what save() returned."""
        self._mappings = {handle: Mapping(*rest) for handle, *rest in state}
