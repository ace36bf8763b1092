"""`vm.virtual[linear]`: memory as the guest's page tables map it, without side effects.

A debugger's view: rights are not asked for, no accessed or dirty flag is set, no translation is
cached, no device is read.
"""

from typing import TYPE_CHECKING

from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.vmcs import Field
from vmm.errors import UsageError
from vmm.vcpu import Vcpu

if TYPE_CHECKING:
    from vmm.memory.shadow.paging import Paging

_PAGE = 4096
_MASK32 = (1 << 32) - 1
_MASK64 = (1 << 64) - 1


class VirtualMemory:
    """Linear addresses of one vCPU. Raises UsageError where nothing is mapped."""

    def __init__(self, vcpu: Vcpu) -> None:
        """View the address space that `vcpu` has now."""
        self._vcpu = vcpu

    def translate(self, linear: int) -> int | None:
        """Return the guest-physical address, None where the guest's tables have none."""
        from vmm.memory.shadow.guest_walk import Found, GuestWalker

        regs = self._vcpu.regs
        linear &= _MASK64 if regs.efer & 1 << 10 else _MASK32
        if not Cr0(regs.cr0).pg:
            return linear
        paging = self._paging()
        width = 57 if paging.cr4.la57 else 48
        if paging.is_long and (linear >> width - 1) not in (0, (1 << 65 - width) - 1):
            return None
        found = GuestWalker(self._vcpu.memory).look(paging, linear)
        return found.gpa if isinstance(found, Found) else None

    def _paging(self) -> "Paging":
        from vmm.memory.shadow.paging import Paging

        vcpu = self._vcpu
        regs, vmcs = vcpu.regs, vcpu.vmcs
        a, b, c, d = (vmcs[Field[f"GUEST_PDPTR{number}"]] for number in range(4))
        return Paging(
            Cr0(regs.cr0), regs.cr3, Cr4(regs.cr4), Efer(regs.efer), (a, b, c, d),
            vcpu.pcpu.capabilities.physical_bits, "pdpe1gb" in vcpu.cpuid.model.features,
        )  # fmt: skip

    def _pieces(self, linear: int, size: int) -> list[tuple[int, int]]:
        pieces = []
        while size:
            part = min(size, _PAGE - linear % _PAGE)
            gpa = self.translate(linear)
            if gpa is None:
                raise UsageError(f"linear {linear:#x} is not mapped in the guest; try vm.memory")
            pieces.append((gpa, part))
            linear, size = linear + part, size - part
        return pieces

    def read(self, linear: int, size: int) -> bytes:
        """Return `size` bytes. Raises UsageError also where a device is mapped."""
        return b"".join(self._vcpu.memory.read(*piece) for piece in self._pieces(linear, size))

    def look(self, linear: int, size: int) -> bytes | None:
        """Return `size` bytes, None where there are none to be read."""
        try:
            return self.read(linear, size)
        except UsageError:
            return None

    def write(self, linear: int, data: bytes) -> None:
        """Write bytes, whatever the guest's page tables permit."""
        for gpa, size in self._pieces(linear, len(data)):
            self._vcpu.memory.write(gpa, data[:size])
            data = data[size:]

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            return self.read(key.start, key.stop - key.start)
        return self.read(key, 1)[0]

    def __setitem__(self, key: int | slice, value: int | bytes) -> None:
        start = key.start if isinstance(key, slice) else key
        self.write(start, bytes([value]) if isinstance(value, int) else value)
