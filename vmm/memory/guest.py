"""Guest-physical memory: slots over machine memory, and the one range-checked way to touch it."""

from collections.abc import Callable, Set
from typing import Final

from hwmodel.arch.paging import InvEpt
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.pcpu import Pcpu
from vmm.errors import UsageError
from vmm.memory.ept import Ept, Slot, pages_for

PRIVATE_PAGES: Final = 16  # machine pages of the hypervisor's own, behind the guest's: bitmaps;
# behind them the EPT's


class GuestMemory:
    """`vm.memory[gpa]`, `vm.memory[a:b]`: bytes of guest-physical memory, readable and writable.

    Raises UsageError for a range that is not RAM: this is the user's and the devices' door, a guest
    access never comes through it unchecked.
    """

    def __init__(
        self,
        ranges: tuple[tuple[int, int], ...],
        *,
        shadow_pages: int = 0,
        apic_pages: int = 0,
        spare: int = 8,
    ) -> None:
        """Lay `ranges` of (gpa, size) in bytes end to end over new machine memory.

        `shadow_pages` more are for shadow tables, `apic_pages` for virtual APICs and for what a
        dialect shares with its guest, `spare` for tables of pages that are mapped later.
        """
        self.size: Final = sum(size for _, size in ranges)
        self.slots: Final = _lay_out(ranges)
        self._private: Final = PRIVATE_PAGES + apic_pages
        tables, ept_size = (
            self.size + self._private * PAGE,
            pages_for(self.slots, spare=spare) * PAGE,
        )
        self.shadow_base: Final = tables + ept_size
        self.ram: Final = Ram(self.shadow_base + shadow_pages * PAGE)
        self.ept: Final = Ept(self.ram, tables, ept_size, self.slots, used=True)
        self.absent: set[int] = set()
        """Pages, by address, that the guest's next access is to exit at: they are swapped out."""
        self._pcpu: Pcpu | None = None
        self.written: list[Callable[[int, int], None]] = []
        """Hear of writes by others than the processor: machine address and bytes."""
        self.remapped: list[Callable[[], None]] = []
        """Hear that guest-physical memory was taken away, or its contents exchanged."""

    def attach(self, pcpu: Pcpu) -> None:
        """Tell `pcpu` of later writes."""
        self._pcpu = pcpu

    def set_absent(self, pages: Set[int]) -> None:
        """Choose the pages that are out: the EPT leads nowhere there."""
        self.take_out(pages - self.absent)
        self.put_back(self.absent - pages)

    def take_out(self, pages: Set[int]) -> None:
        """Have pages out, in addition to others."""
        for page in sorted(pages):
            self.ept.unmap_page(page)
        self.absent |= pages
        self._forget_translations(bool(pages))

    def put_back(self, pages: Set[int]) -> None:
        """Have pages back that are out."""
        for page in sorted(pages):
            at = self.hpa(page, PAGE)
            assert at is not None
            self.ept.map(Slot(page, PAGE, at))
        self.absent -= pages
        self._forget_translations(bool(pages))

    def _forget_translations(self, changed: bool) -> None:
        if changed and self._pcpu is not None:
            self._pcpu.invept(InvEpt.SINGLE_CONTEXT, self.ept.pointer())
            self.note_exchanged()

    def map_device_page(self, gpa: int, hpa: int | None) -> None:
        """Map a page that is no RAM to machine memory; None takes it away again."""
        self.ept.replace_page(gpa, 0 if hpa is None else self.ept.page(hpa))
        self._forget_translations(True)

    def note_exchanged(self) -> None:
        """Guest-physical memory is not what it was: nothing that was learnt of it holds."""
        for hook in self.remapped:
            hook()

    def private_page(self, number: int) -> int:
        """Return the host-physical address of a page that no guest can reach.

        The virtual APICs' begin with number PRIVATE_PAGES.
        """
        assert 0 <= number < self._private
        return self.size + number * PAGE

    def last_private(self, count: int) -> int:
        """Return the host-physical address of the last `count` of those pages."""
        return self.private_page(self._private - count)

    def hpa(self, gpa: int, size: int = 1) -> int | None:
        """Return where [gpa, gpa+size) lies in machine memory, None if not in one slot."""
        for slot in self.slots:
            offset = gpa - slot.gpa
            if offset >= 0 and offset + size <= slot.size:
                return slot.hpa + offset
        return None

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes."""
        at = self._place(gpa, size)
        return bytes(self.ram.view[at : at + size])

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Write bytes, as a device's DMA would: translated code there is dropped."""
        at = self._place(gpa, len(data))
        self.ram.view[at : at + len(data)] = data
        self.wrote(at, len(data))

    def wrote(self, at: int, size: int) -> None:
        """Say that bytes were stored at machine address `at` through `ram.view`."""
        if self._pcpu is not None and size:
            self._pcpu.host_wrote(at, size)
            for hook in self.written:
                hook(at, size)

    def wrote_flags(self, at: int) -> None:
        """Say that flags were set in a page-table entry at machine address `at`."""
        if self._pcpu is not None:
            self._pcpu.host_wrote(at, 4)

    def discard(self, at: int, size: int) -> int:
        """Give the whole pages of [at, at + size), machine addresses in RAM, back to the host.

        They read as zero afterwards. Returns how many bytes that were.
        """
        first, end = -(-at // PAGE) * PAGE, (at + size) // PAGE * PAGE
        if first >= end:
            return 0
        self.ram.discard(first, end - first)
        self.wrote(first, end - first)
        return end - first

    def _place(self, gpa: int, size: int) -> int:
        at = self.hpa(gpa, size)
        if at is None:
            raise UsageError(
                f"{size} bytes at guest-physical {gpa:#x} are not RAM; the guest has {self.size:#x}"
            )
        return at

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            start, stop = _bounds(key)
            return self.read(start, stop - start)
        return self.read(key, 1)[0]

    def __setitem__(self, key: int | slice, value: int | bytes) -> None:
        if isinstance(key, int):
            self.write(key, bytes([int(value) if isinstance(value, int) else value[0]]))
            return
        start, _ = _bounds(key) if key.stop is not None else (key.start, 0)
        self.write(start, value if isinstance(value, bytes | bytearray) else bytes([int(value)]))


def _bounds(key: slice) -> tuple[int, int]:
    if key.start is None or key.stop is None or key.step not in (None, 1):
        raise UsageError("guest memory is sliced as [start:stop]; give both addresses")
    return key.start, key.stop


def _lay_out(ranges: tuple[tuple[int, int], ...]) -> list[Slot]:
    slots, hpa = [], 0
    for gpa, size in ranges:
        slots.append(Slot(gpa, size, hpa))
        hpa += size
    return slots
