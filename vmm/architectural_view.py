"""What a handler wants to know of a vCPU's architectural state, in the guest's own terms."""

from typing import Final

from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.host import CR0_FORCED, CR4_FORCED
from hwmodel.vmx.state import Registers, Vmcs

_PAGE: Final = 4096
_CS_L, _DB = 1 << 13, 1 << 14
_LMA, _VM, _PE, _PG = 1 << 10, 1 << 17, 1, 1 << 31
_MASK64: Final = (1 << 64) - 1


class ArchitecturalView:
    """Reads and writes over a VMCS; `Vcpu` is one."""

    vmcs: Vmcs
    regs: Registers
    pcpu: Pcpu

    def code_bits(self) -> int:
        """Return the size of the current code segment: 16, 32 or 64."""
        rights = self.vmcs[Field.GUEST_CS_AR_BYTES]
        if self.regs.efer & _LMA and rights & _CS_L:
            return 64
        return 32 if rights & _DB and not self.regs.rflags & _VM else 16

    def stack_bits(self) -> int:
        """Return the width of the stack pointer: 16, 32 or 64."""
        if self.code_bits() == 64:
            return 64
        wide = self.vmcs[Field.GUEST_SS_AR_BYTES] & _DB and not self.regs.rflags & _VM
        return 32 if wide else 16

    def cpl(self) -> int:
        """Return the current privilege level."""
        if not self.regs.cr0 & _PE:
            return 0
        return 3 if self.regs.rflags & _VM else self.vmcs[Field.GUEST_SS_AR_BYTES] >> 5 & 3

    def is_user(self) -> bool:
        """Whether paging sees a user."""
        return self.cpl() == 3

    def natural_mask(self) -> int:
        """All ones in the width of MOV to CR: 64 bits in 64-bit code, else 32."""
        return _MASK64 if self.code_bits() == 64 else 0xFFFF_FFFF

    def mode(self) -> str:
        """Name the processor mode: real, v8086, protected16/32, long64, compat16/32."""
        if not self.regs.cr0 & _PE:
            return "real"
        if self.regs.rflags & _VM:
            return "v8086"
        bits = self.code_bits()
        if self.regs.efer & _LMA:
            return "long64" if bits == 64 else f"compat{bits}"
        return f"protected{bits}"

    def linear_rip(self) -> int:
        """Return CS:RIP as a linear address."""
        if self.code_bits() == 64:
            return self.regs.rip
        return self.regs.rip + self.vmcs[Field.GUEST_CS_BASE] & 0xFFFF_FFFF

    def fetch(self, count: int) -> bytes:
        """Return up to `count` code bytes at CS:RIP; fewer where the next page is missing."""
        return self.fetch_at(self.linear_rip(), count)

    def fetch_at(self, linear: int, count: int) -> bytes:
        """Return up to `count` code bytes at `linear`; fewer where the next page is missing."""
        user = self.is_user()
        first = min(count, _PAGE - linear % _PAGE)
        code = self._fetch(linear, first, user)
        if len(code) == first < count:
            code += self._fetch(linear + first, count - first, user)
        return code

    def _fetch(self, linear: int, size: int, user: bool) -> bytes:
        code = self.pcpu.fetch(self.vmcs, linear, size, user=user)
        return b"" if isinstance(code, Fault) else code

    def set_register(self, number: int, value: int, size: int) -> None:
        """Write a general register as an instruction of operand `size` bytes does."""
        if size == 8:
            self.regs[number] = value
        elif size == 4:
            self.regs[number] = value & 0xFFFF_FFFF
        else:
            mask = (1 << size * 8) - 1
            self.regs[number] = self.regs[number] & ~mask | value & mask

    def guest_cr0(self) -> int:
        """Return CR0 as the guest reads it."""
        mask = self.vmcs[Field.CR0_GUEST_HOST_MASK]
        return self.regs.cr0 & ~mask | self.vmcs[Field.CR0_READ_SHADOW] & mask

    def set_cr0(self, value: int) -> None:
        """Set CR0 for the guest, and what it reads back."""
        self.regs.cr0 = value | CR0_FORCED
        self.vmcs[Field.CR0_READ_SHADOW] = value

    def guest_cr4(self) -> int:
        """Return CR4 as the guest reads it."""
        mask = self.vmcs[Field.CR4_GUEST_HOST_MASK]
        return self.regs.cr4 & ~mask | self.vmcs[Field.CR4_READ_SHADOW] & mask

    def set_cr4(self, value: int) -> None:
        """Set CR4 for the guest, and what it reads back."""
        self.regs.cr4 = value | CR4_FORCED
        self.vmcs[Field.CR4_READ_SHADOW] = value

    def has_event(self) -> bool:
        """Whether the next entry already injects something."""
        return bool(self.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] >> 31)

    def tsc(self) -> int:
        """Return the guest's time-stamp counter."""
        return self.pcpu.clock.tsc() + self.vmcs[Field.TSC_OFFSET] & _MASK64

    def tsc_offset(self) -> int:
        """Return the guest's time-stamp counter less the machine's, modulo 2^64."""
        return self.vmcs[Field.TSC_OFFSET]

    def set_tsc(self, value: int) -> None:
        """Make the guest's time-stamp counter read `value` now."""
        self.vmcs[Field.TSC_OFFSET] = value - self.pcpu.clock.tsc()
