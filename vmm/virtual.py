"""`vm.virtual[linear]`: memory as the guest's page tables map it, without side effects."""

from hwmodel.pcpu import READ, Fault
from vmm.errors import UsageError
from vmm.vcpu import Vcpu

_PAGE = 4096


class VirtualMemory:
    """Linear addresses of one vCPU. Raises UsageError where nothing is mapped."""

    def __init__(self, vcpu: Vcpu) -> None:
        """View the address space that `vcpu` has now."""
        self._vcpu = vcpu

    def _pieces(self, linear: int, size: int) -> list[tuple[int, int]]:
        pieces = []
        while size:
            part = min(size, _PAGE - linear % _PAGE)
            gpa = self._vcpu.pcpu.translate(self._vcpu.vmcs, linear, READ)
            if isinstance(gpa, Fault):
                raise UsageError(f"linear {linear:#x} is not mapped in the guest; try vm.memory")
            pieces.append((gpa, part))
            linear, size = linear + part, size - part
        return pieces

    def read(self, linear: int, size: int) -> bytes:
        """Return `size` bytes."""
        return b"".join(self._vcpu.memory.read(*piece) for piece in self._pieces(linear, size))

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
