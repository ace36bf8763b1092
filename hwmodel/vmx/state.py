"""A VMCS, and the registers of a virtual CPU that the VMCS does not hold."""

from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Any, Final

from hwmodel.arch.vmcs import Field
from hwmodel.cpu.unicorn import ffi, lib
from hwmodel.timing.ledger import Account, Heading, read_account

GPR_NAMES: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_RSP: Final = 4
_EFER: Final = Field.GUEST_IA32_EFER.index
_ENTRY: Final = Field.VM_ENTRY_CONTROLS.index
_IA32E, _LMA = 1 << 9, 1 << 10
_MASK: Final = (1 << 64) - 1
_STEAL: Final = Heading.STEAL.number
SetFour = Callable[[int, int, int, int], None]
_INDEX: Final = {field: field.index for field in Field}


class Vmcs:
    """The fields of one VMCS, by `Field`; values are ints cut to the field's width.

    `registers` is the rest of the virtual CPU: what software switches by itself. `fields` is the C
    array, by `Field.index`, for what is read at every exit.
    """

    __slots__ = ("_code", "fields", "native", "registers", "skip_exit")

    def __init__(self) -> None:
        """Make one in the state after reset."""
        self.native: Final = ffi.new("struct vcpu *")
        self.fields: Final = self.native.field
        self.registers: Final = Registers(self.native)
        self.skip_exit: Final[Callable[[], None]] = partial(lib.vcpu_skip_exit, self.native)
        """Move RIP past the instruction that exited."""
        self._code: Final = ffi.buffer(self.native.code)
        self.reset()

    def exiting_code(self) -> bytes:
        """Return up to 15 bytes at the instruction of an EPT_VIOLATION or IO_INSTRUCTION exit."""
        return self._code[: self.native.code_bytes]  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Set everything as after power-up; controls are zero."""
        lib.vcpu_reset(self.native)

    def __getitem__(self, field: Field) -> int:
        return self.fields[_INDEX[field]]  # type: ignore[no-any-return]

    def __setitem__(self, field: Field, value: int) -> None:
        self.fields[_INDEX[field]] = value & field.mask

    def skip(self, length: int) -> None:
        """Move RIP past an instruction of `length` bytes that software carried out."""
        lib.vcpu_skip(self.native, length)

    def account(self) -> Account:
        """Return this virtual CPU's part of the ledger, with what waits to be booked."""
        return read_account(self.native.ledger, self.native.retire)

    def book_stolen(self, cycles: int) -> None:
        """Another one ran in its place: no time of its own passed, so the clock stays."""
        self.native.ledger.cycles[_STEAL] += cycles

    def save_ledger(self) -> bytes:
        """Return its part of the ledger as bytes."""
        return bytes(ffi.buffer(ffi.addressof(self.native, "ledger")))

    def restore_ledger(self, image: bytes) -> None:
        """Take back what `save_ledger` gave."""
        ffi.memmove(ffi.addressof(self.native, "ledger"), image, len(image))

    def completed(self, instructions: int = 1) -> None:
        """Book instructions that software carried out for the guest."""
        self.native.retire += instructions

    def save(self) -> bytes:
        """Return everything as bytes; `Pcpu.sync` first, for the x87 and SSE state."""
        return bytes(ffi.buffer(self.native))

    def restore(self, image: bytes) -> None:
        """Take back what `save` gave."""
        ffi.memmove(self.native, image, len(image))


def _field(field: Field, doc: str) -> property:
    index = field.index

    def read(self: "Registers") -> int:
        return self._fields[index]  # type: ignore[no-any-return]

    def write(self: "Registers", value: int) -> None:
        self._fields[index] = value & _MASK

    return property(read, write, doc=doc)


def _gpr(number: int) -> property:
    if number == _RSP:
        return _field(Field.GUEST_RSP, "RSP")

    def read(self: "Registers") -> int:
        return self.gpr[number]  # type: ignore[no-any-return]

    def write(self: "Registers", value: int) -> None:
        self.gpr[number] = value & _MASK

    return property(read, write, doc=GPR_NAMES[number].upper())


def _plain(name: str) -> property:
    def read(self: "Registers") -> int:
        return getattr(self.native, name)  # type: ignore[no-any-return]

    def write(self: "Registers", value: int) -> None:
        setattr(self.native, name, value & _MASK)

    return property(read, write, doc=name.upper())


class Registers:
    """Registers by name (`rax` ... `r15`, `rip`, `rflags`, `cr0` ...) or by hardware number.

    `gpr` is the C array itself, for handlers on the hot way; its RSP is not the guest's.
    """

    __slots__ = ("_fields", "gpr", "native", "set_acdb")

    def __init__(self, native: Any) -> None:
        """View the registers of a C `struct vcpu`."""
        self.native = native
        self.gpr, self._fields = native.gpr, native.field
        low = memoryview(ffi.buffer(native.gpr)).cast("B")
        self.set_acdb: Final[SetFour] = partial(Struct("<4Q").pack_into, low, 0)
        """Write RAX, RCX, RDX, RBX at once: their order as hardware numbers them."""

    def __getitem__(self, number: int) -> int:
        if number == _RSP:
            return self.rsp
        return self.gpr[number]  # type: ignore[no-any-return]

    def __setitem__(self, number: int, value: int) -> None:
        if number == _RSP:
            self.rsp = value
        else:
            self.gpr[number] = value & _MASK

    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi = (_gpr(n) for n in range(8))
    r8, r9, r10, r11, r12, r13, r14, r15 = (_gpr(n) for n in range(8, 16))
    rip = _field(Field.GUEST_RIP, "RIP, the offset in CS")
    rflags = _field(Field.GUEST_RFLAGS, "RFLAGS as the guest sees it")
    cr0 = _field(Field.GUEST_CR0, "CR0")
    cr3 = _field(Field.GUEST_CR3, "CR3")
    cr4 = _field(Field.GUEST_CR4, "CR4")
    efer = property(
        lambda self: self._fields[_EFER],
        lambda self, value: self._set_efer(value),
        doc="IA32_EFER; writing it keeps the entry control 'IA-32e mode guest' in step with LMA",
    )
    dr7 = _field(Field.GUEST_DR7, "DR7")
    cr2, cr8, dr6 = _plain("cr2"), _plain("cr8"), _plain("dr6")
    star, lstar, cstar, fmask = _plain("star"), _plain("lstar"), _plain("cstar"), _plain("fmask")
    kernel_gs_base, tsc_aux = _plain("kernel_gs_base"), _plain("tsc_aux")
    cs = _field(Field.GUEST_CS_SELECTOR, "CS selector")
    ss = _field(Field.GUEST_SS_SELECTOR, "SS selector")

    def _set_efer(self, value: int) -> None:
        self._fields[_EFER] = value & _MASK
        entry = self._fields[_ENTRY] & ~_IA32E
        self._fields[_ENTRY] = entry | (_IA32E if value & _LMA else 0)

    def dr(self, number: int) -> int:
        """Return DR0 to DR3."""
        return self.native.dr[number]  # type: ignore[no-any-return]

    def as_dict(self) -> dict[str, int]:
        """Return the general registers, RIP and RFLAGS."""
        values = {name: self[n] for n, name in enumerate(GPR_NAMES)}
        return values | {"rip": self.rip, "rflags": self.rflags}
