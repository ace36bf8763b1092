"""HYPERVISOR_memory_op (public/memory.h): frames given back and taken, limits, tables."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from hwmodel.cpu.xen import Layout, XenEngine
from vmm.memory.pseudo import PseudoPhysical
from vmm.pv.xen.abi import HOLE_START, Errno, is_self
from vmm.pv.xen.guest import BadPointerError, Caller

if TYPE_CHECKING:
    from collections.abc import Callable

_RESERVATION: Final = Struct("<QQIIH6x")  # extents, count, order, flags, domain
_MAPPING: Final = Struct("<QQQ")
_MFN_LIST: Final = Struct("<IxxxxQI4x")
_COMMAND: Final = 0x3F  # the rest says where a continuation goes on
_MOST_AT_ONCE: Final = 1 << 16


class MemoryOp:
    """The operations by number."""

    def __init__(self, engine: XenEngine, memory: PseudoPhysical, layout: Layout) -> None:
        """Over the frames of a domain."""
        self._engine: Final = engine
        self._memory: Final = memory
        self._layout: Final = layout
        self._operations: Final[dict[int, Callable[[Caller, int], int]]] = {
            0: self._increase, 1: self._decrease, 2: self._highest, 3: self._current,
            4: self._most, 5: self._mfn_list, 6: self._populate, 12: self._mapping,
        }  # fmt: skip
        self.owned = engine.frames

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out; what only an HVM guest or a toolstack needs is not offered."""
        operation = self._operations.get(arguments[0] & _COMMAND)
        return -Errno.NOSYS if operation is None else operation(cpu, arguments[1])

    def _reservation(self, cpu: Caller, at: int) -> tuple[int, int, int] | None:
        """Return (extents, count, domain is the guest and pages are single)."""
        extents, count, order, _, domain = cpu.unpack(_RESERVATION, at)
        return extents, min(count, _MOST_AT_ONCE), int(is_self(domain) and not order)

    def _decrease(self, cpu: Caller, at: int) -> int:
        """Return how many frames were taken; a bad one ends it."""
        found = self._reservation(cpu, at)
        assert found is not None
        extents, count, fits = found
        for done in range(count if fits else 0):
            try:
                mfn = int.from_bytes(cpu.read(extents + 8 * done, 8), "little")
            except BadPointerError:
                return done
            pfn = self._engine.pfn_of(mfn)
            if self._engine.release(mfn):
                return done
            self.owned -= 1
            if pfn < self._memory.frames and self._memory.p2m[pfn] == mfn:
                self._memory.note_exchanged()
        return count if fits else 0

    def _increase(self, cpu: Caller, at: int) -> int:
        return self._take(cpu, at, places=False)

    def _populate(self, cpu: Caller, at: int) -> int:
        return self._take(cpu, at, places=True)

    def _take(self, cpu: Caller, at: int, *, places: bool) -> int:
        """Return how many frames were given; with `places` the extents name their pfns."""
        found = self._reservation(cpu, at)
        assert found is not None
        extents, count, fits = found
        for done in range(count if fits else 0):
            try:
                pfn = int.from_bytes(cpu.read(extents + 8 * done, 8), "little") if places else -1
                mfn = self._engine.claim()
                if mfn < 0:
                    return done
                self.owned += 1
                self._engine.set_pfn(mfn, pfn if places else (1 << 63) - 1)
                if places and pfn < self._memory.frames:
                    self._memory.p2m[pfn] = mfn
                    self._memory.note_exchanged()
                if extents:
                    cpu.write(extents + 8 * done, mfn.to_bytes(8, "little"))
            except BadPointerError:
                return done
        return count if fits else 0

    def _highest(self, _cpu: Caller, _at: int) -> int:
        return self._layout.end - 1

    def _current(self, cpu: Caller, at: int) -> int:
        return self.owned if is_self(_domain(cpu, at)) else -Errno.SRCH

    def _most(self, cpu: Caller, at: int) -> int:
        return self._engine.frames if is_self(_domain(cpu, at)) else -Errno.SRCH

    def _mfn_list(self, cpu: Caller, at: int) -> int:
        """Where the machine-to-physical table is: 2 MiB pieces, by their first frames."""
        most, extents, _ = cpu.unpack(_MFN_LIST, at)
        frames = range(self._layout.m2p, self._layout.m2p + -(-self._layout.end // 512), 512)
        listed = frames[:most]
        for number, mfn in enumerate(listed):
            cpu.write(extents + 8 * number, mfn.to_bytes(8, "little"))
        cpu.write(at + 16, len(listed).to_bytes(4, "little"))
        return 0

    def _mapping(self, cpu: Caller, at: int) -> int:
        """The machine-to-physical table in the guest's linear space."""
        end = HOLE_START + 8 * self._layout.end
        cpu.write(at, _MAPPING.pack(HOLE_START, end, self._layout.end - 1))
        return 0


def _domain(cpu: Caller, at: int) -> int:
    return int.from_bytes(cpu.read(at, 2), "little")
