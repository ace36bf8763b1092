"""A vCPU as the instruction emulator sees it: registers, memory with its faults, devices."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.addr import is_canonical
from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.pcpu import WRITE
from hwmodel.vmx.exit import Exit
from vmm.exits.bounce import pieces
from vmm.exits.emulate import GuestFault

if TYPE_CHECKING:
    from hwmodel.vmx.state import Registers
    from vmm.vcpu import Vcpu

_PAGE: Final = 4096
_PLAIN: Final = frozenset({1, 2, 4, 8})  # what a bus carries in one piece, when aligned
_SELECTORS: Final = (
    Field.GUEST_ES_SELECTOR, Field.GUEST_CS_SELECTOR, Field.GUEST_SS_SELECTOR,
    Field.GUEST_DS_SELECTOR, Field.GUEST_FS_SELECTOR, Field.GUEST_GS_SELECTOR,
)  # fmt: skip
_BASES: Final = (
    Field.GUEST_ES_BASE, Field.GUEST_CS_BASE, Field.GUEST_SS_BASE,
    Field.GUEST_DS_BASE, Field.GUEST_FS_BASE, Field.GUEST_GS_BASE,
)  # fmt: skip


_CR4_LA57: Final = 1 << 12


class MachineView:
    """The `Machine` of vmm/exits/emulate.py for one instruction of one vCPU."""

    __slots__ = ("_gpa", "_page", "_vcpu", "bits", "regs")

    def __init__(self, vcpu: "Vcpu", vmexit: Exit) -> None:
        """Remember which page the exit was for: it is known to be a device's."""
        self._vcpu = vcpu
        self.regs: Registers = vcpu.regs
        self.bits: int = vcpu.vmcs.native.code_size
        gpa = vmexit.guest_physical
        self._page = vmexit.guest_linear & -_PAGE if gpa else -1
        self._gpa = gpa & -_PAGE

    @property
    def stack_bits(self) -> int:
        """Width of the stack pointer."""
        return self._vcpu.stack_bits()

    def xmm(self, number: int, /) -> int:
        """Return an XMM register."""
        return self._vcpu.pcpu.xmm(self._vcpu.vmcs, number)

    def set_xmm(self, number: int, value: int, /) -> None:
        """Set an XMM register."""
        self._vcpu.pcpu.set_xmm(self._vcpu.vmcs, number, value)

    def segment_base(self, segment: int, /) -> int:
        """Return a segment's base; in 64-bit mode only FS and GS have one."""
        if self.bits == 64 and segment < 4:
            return 0
        return self._vcpu.vmcs[_BASES[segment]]

    def segment_selector(self, segment: int, /) -> int:
        """Return a selector as the guest sees it."""
        return self._vcpu.vmcs[_SELECTORS[segment]]

    def is_canonical(self, linear: int, /) -> bool:
        """Say whether a branch of 64-bit code may go there: LA57 widens what is canonical."""
        return is_canonical(linear, 57 if self.regs.cr4 & _CR4_LA57 else 48)

    def fetch(self, count: int, /) -> bytes:
        """Return code bytes at CS:RIP, as the exit found them."""
        code = self._vcpu.vmcs.exiting_code()
        if self.bits == 64 and len(code) < count:
            return self._vcpu.fetch_at(self.regs.rip, count)
        return code[:count]

    def read(self, linear: int, size: int, /) -> int:
        """Read memory or a device; an aligned register in the page that exited is the hot way."""
        if linear & -_PAGE == self._page and size <= 8 and not linear % size:
            vcpu = self._vcpu
            return vcpu.board.emulated.read(vcpu.index, self._gpa | linear & _PAGE - 1, size)
        data = b"".join(self._read(*part) for part in _parts(linear, size))
        return int.from_bytes(data, "little")

    def _read(self, linear: int, size: int) -> bytes:
        vcpu = self._vcpu
        if linear & -_PAGE != self._page:
            got = vcpu.pcpu.read(vcpu.vmcs, linear, size, user=vcpu.is_user())
            if not isinstance(got, Fault):
                return got
            if self._brings_back(got):
                return self._read(linear, size)
            gpa = self._device(got)
        else:
            gpa = self._gpa | linear & _PAGE - 1
        return b"".join(
            vcpu.board.emulated.read(vcpu.index, at, width).to_bytes(width, "little")
            for at, width in pieces(gpa, size)
        )

    def write(self, linear: int, size: int, value: int, /) -> None:
        """Write memory or a device; a range that crosses pages is checked as a whole first."""
        if linear & -_PAGE == self._page and size in _PLAIN and not linear % size:
            vcpu = self._vcpu
            vcpu.board.emulated.write(vcpu.index, self._gpa | linear & _PAGE - 1, size, value)
            return
        if linear & -_PAGE == self._page and size <= 8 and not linear % size:
            vcpu = self._vcpu
            vcpu.board.emulated.write(vcpu.index, self._gpa | linear & _PAGE - 1, size, value)
            return
        data = value.to_bytes(size, "little")
        parts = _parts(linear, size)
        if len(parts) > 1:
            self.check_write(linear, size)
        for at, width in parts:
            self._write(at, data[:width])
            data = data[width:]

    def _write(self, linear: int, data: bytes) -> None:
        vcpu = self._vcpu
        if linear & -_PAGE != self._page:
            fault = vcpu.pcpu.write(vcpu.vmcs, linear, data, user=vcpu.is_user())
            if fault is None:
                if vcpu.shadow is not None:
                    vcpu.shadow.wrote(linear, len(data))
                return
            if self._brings_back(fault):
                self._write(linear, data)
                return
            gpa = self._device(fault)
        else:
            gpa = self._gpa | linear & _PAGE - 1
        for at, width in pieces(gpa, len(data)):
            part = int.from_bytes(data[at - gpa : at - gpa + width], "little")
            vcpu.board.emulated.write(vcpu.index, at, width, part)

    def check_write(self, linear: int, size: int, /) -> None:
        """Fault as `write` would."""
        vcpu = self._vcpu
        for at, _ in _parts(linear, size):
            got = vcpu.pcpu.translate(vcpu.vmcs, at, WRITE, user=vcpu.is_user())
            if isinstance(got, Fault) and not self._brings_back(got):
                self._device(got)

    def _brings_back(self, fault: Fault) -> bool:
        """Whether it was memory that was swapped out, and now is back: try again."""
        page = fault.gpa & -_PAGE
        if fault.vector is not None or page not in self._vcpu.memory.absent:
            return False
        self._vcpu.pager.bring_back(page)
        return True

    def _device(self, fault: Fault) -> int:
        """Return where the device is, if it is one; else raise the guest's fault."""
        if fault.vector is None:
            return fault.gpa
        error = fault.error_code if fault.vector != 6 else None
        raise GuestFault(fault.vector, error, fault.address)

    def port_in(self, port: int, size: int, /) -> int:
        """Read a port."""
        return self._vcpu.board.emulated.port_in(port, size)

    def port_out(self, port: int, size: int, value: int, /) -> None:
        """Write a port."""
        self._vcpu.board.emulated.port_out(port, size, value)


def _parts(linear: int, size: int) -> list[tuple[int, int]]:
    """Split a range at page borders."""
    first = min(size, _PAGE - linear % _PAGE)
    return [(linear, size)] if first == size else [(linear, first), (linear + first, size - first)]
