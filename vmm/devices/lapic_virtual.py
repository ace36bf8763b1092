"""A local APIC's registers as the processor has them: in a page of machine memory.

Manual, "Virtual-APIC Page" and "Posted-Interrupt Processing". Requests are posted: they go into the
descriptor, from where the processor takes them when it is notified, and software when it looks.
"""

from vmm.devices.lapic_registers import Reg, RegisterPage

DESCRIPTOR_BYTES = 64
_REQUESTS = 32
"""Bytes of the descriptor that hold a bit for each vector; bit 0 of the next is ON."""
_ON = 1


class VirtualPage(RegisterPage):
    """Registers in `page`, 4 KiB; requests in `descriptor`, 64 bytes."""

    def __init__(self, page: memoryview, descriptor: memoryview) -> None:
        """Take over what stands there."""
        self.bytes = page
        self._descriptor = descriptor

    @property
    def is_outstanding(self) -> bool:
        """Whether requests wait in the descriptor."""
        return bool(self._descriptor[_REQUESTS] & _ON)

    def request(self, vector: int) -> None:
        """Post an interrupt."""
        self._descriptor[vector >> 3] |= 1 << (vector & 7)
        self._descriptor[_REQUESTS] |= _ON

    def requested(self) -> int:
        """Return the highest vector in IRR, -1 for none; what is posted is not looked at."""
        return super().highest(Reg.IRR)

    def in_service(self) -> int:
        """Return the highest vector in ISR, -1 for none."""
        return super().highest(Reg.ISR)

    def level_triggered(self) -> int:
        """Return the vectors that TMR has, one bit each."""
        bank = bytes(self.bytes[Reg.TMR : Reg.TMR + 0x80])
        if not any(bank):
            return 0
        words = (bank[at : at + 4] for at in range(0, 0x80, 16))
        return int.from_bytes(b"".join(words), "little")

    def __getitem__(self, offset: int) -> int:
        """Return the 32-bit register at `offset`."""
        self._collect()
        return super().__getitem__(offset)

    def highest(self, bank: int) -> int:
        """Return the highest vector set in ISR or IRR, -1 if none."""
        self._collect()
        return super().highest(bank)

    def set_bit(self, bank: int, vector: int, *, value: bool) -> None:
        """Set or clear the bit of `vector` in ISR, TMR or IRR."""
        if bank == Reg.IRR:
            self._collect()
        super().set_bit(bank, vector, value=value)

    def reset(self, identity: int, *, x2apic: bool) -> None:
        """The state after power-up or INIT: nothing is posted."""
        self._descriptor[:] = bytes(DESCRIPTOR_BYTES)
        super().reset(identity, x2apic=x2apic)

    def contents(self) -> bytes:
        """Everything, but for what only the processor keeps there: PPR, the last self-IPI."""
        self._collect()
        copy = bytearray(self.bytes)
        for offset in (Reg.PPR, Reg.SELF_IPI):
            copy[offset : offset + 4] = bytes(4)
        return bytes(copy)

    def fill(self, contents: bytes) -> None:
        """Take over what contents() returned: nothing else is posted."""
        self._descriptor[:] = bytes(DESCRIPTOR_BYTES)
        super().fill(contents)

    def _collect(self) -> None:
        """Move what is posted to IRR, as the processor does when it is notified."""
        if not self.is_outstanding:
            return
        for word in range(0, _REQUESTS, 4):
            at = Reg.IRR + word * 4
            for n in range(4):
                self.bytes[at + n] |= self._descriptor[word + n]
        self._descriptor[:] = bytes(DESCRIPTOR_BYTES)
