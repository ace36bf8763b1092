"""The registers that gdb is shown, in the order of their numbers.

The first three groups are gdb's own standard features (gdb manual, "i386 Features"); `g` and `G`
carry exactly those, so their length never changes, whatever mode the guest is in: it is always the
64-bit description. The system registers and the VMX group are fetched one by one (`p`).

`rip` is linear: the base of CS is added, since breakpoints are linear and gdb compares. `ip` in the
system group is the offset.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import GPR_NAMES
from vmm.gdb.fpu import fpu_registers
from vmm.vcpu import Vcpu

CORE: Final = "org.gnu.gdb.i386.core"
SSE: Final = "org.gnu.gdb.i386.sse"
SEGMENTS: Final = "org.gnu.gdb.i386.segments"
SYSTEM: Final = "org.ring1.system"
VMX: Final = "org.ring1.vmx"
_MASK64: Final = (1 << 64) - 1
_ALWAYS_1: Final = 2
_RFLAGS: Final = 0x3F_7FD5  # the bits that are not reserved
_GDB_ORDER: Final = (0, 3, 1, 2, 6, 7, 5, 4, *range(8, 16))
"""gdb's order of the general registers: rax rbx rcx rdx rsi rdi rbp rsp r8 ..., by number."""


@dataclass(frozen=True, slots=True)
class View:
    """What registers are read from: a virtual CPU, and the newest exit if it was that one's."""

    vcpu: Vcpu
    last_exit: Exit | None


Reader = Callable[[View], int]
Writer = Callable[[View, int], None]


@dataclass(frozen=True, slots=True)
class Register:
    """One register; `type` is gdb's name of a type, `write` None for those that cannot be set."""

    name: str
    feature: str
    bits: int
    read: Reader
    write: Writer | None = None
    type: str = ""
    group: str = ""

    @property
    def size(self) -> int:
        """Bytes in `g` and `p`."""
        return self.bits // 8


def _gpr(number: int) -> Register:
    def write(view: View, value: int) -> None:
        view.vcpu.regs[number] = value

    kind = "data_ptr" if number in (4, 5) else "int64"
    return Register(
        GPR_NAMES[number], CORE, 64, lambda v: v.vcpu.regs[number], write, kind, "general"
    )


def _set_linear_rip(view: View, value: int) -> None:
    vcpu = view.vcpu
    base = 0 if vcpu.code_bits() == 64 else vcpu.vmcs[Field.GUEST_CS_BASE]
    vcpu.regs.rip = value - base & (_MASK64 if vcpu.code_bits() == 64 else 0xFFFF_FFFF)


def _set_rflags(view: View, value: int) -> None:
    view.vcpu.regs.rflags = value & _RFLAGS | _ALWAYS_1


def _field(name: str, field: Field, feature: str, bits: int, kind: str = "") -> Register:
    def write(view: View, value: int) -> None:
        view.vcpu.vmcs[field] = value

    return Register(name, feature, bits, lambda v: v.vcpu.vmcs[field], write, kind, "system")


def _selector(name: str) -> Register:
    """A selector alone, as after a fault of a debugger's: base and rights stay what they are."""
    field = Field[f"GUEST_{name.upper()}_SELECTOR"]

    def write(view: View, value: int) -> None:
        view.vcpu.vmcs[field] = value

    return Register(name, CORE, 32, lambda v: v.vcpu.vmcs[field], write, "int32", "general")


def _plain(name: str, bits: int = 64, kind: str = "") -> Register:
    def write(view: View, value: int) -> None:
        setattr(view.vcpu.regs, name, value)

    def read(view: View) -> int:
        return int(getattr(view.vcpu.regs, name))

    return Register(name, SYSTEM, bits, read, write, kind, "system")


def _dr(number: int) -> Register:
    def write(view: View, value: int) -> None:
        view.vcpu.regs.native.dr[number] = value

    return Register(
        f"dr{number}", SYSTEM, 64, lambda v: v.vcpu.regs.dr(number), write, "data_ptr", "system"
    )


def _core() -> list[Register]:
    return [
        *(_gpr(number) for number in _GDB_ORDER),
        Register("rip", CORE, 64, lambda v: v.vcpu.linear_rip(), _set_linear_rip, "code_ptr",
                 "general"),
        Register("eflags", CORE, 32, lambda v: v.vcpu.regs.rflags, _set_rflags, "i386_eflags",
                 "general"),
        *(_selector(name) for name in ("cs", "ss", "ds", "es", "fs", "gs")),
    ]  # fmt: skip


def _bases() -> list[Register]:
    return [
        _field("fs_base", Field.GUEST_FS_BASE, SEGMENTS, 64, "data_ptr"),
        _field("gs_base", Field.GUEST_GS_BASE, SEGMENTS, 64, "data_ptr"),
    ]


def _set_efer(view: View, value: int) -> None:
    view.vcpu.regs.efer = value


def _set_ip(view: View, value: int) -> None:
    view.vcpu.regs.rip = value


def _system() -> list[Register]:
    vcpu = "system"
    return [
        Register("ip", SYSTEM, 64, lambda v: v.vcpu.regs.rip, _set_ip, "uint64", vcpu),
        Register("cr0", SYSTEM, 64, lambda v: v.vcpu.guest_cr0(),
                 lambda v, n: v.vcpu.set_cr0(n), "x64_cr0", vcpu),
        _plain("cr2", kind="data_ptr"),
        Register("cr3", SYSTEM, 64, lambda v: v.vcpu.regs.cr3,
                 lambda v, n: setattr(v.vcpu.regs, "cr3", n), "uint64", vcpu),
        Register("cr4", SYSTEM, 64, lambda v: v.vcpu.guest_cr4(),
                 lambda v, n: v.vcpu.set_cr4(n), "x64_cr4", vcpu),
        Register("cr8", SYSTEM, 64, lambda v: v.vcpu.regs.cr8, None, "uint64", vcpu),
        Register("efer", SYSTEM, 64, lambda v: v.vcpu.regs.efer, _set_efer, "x64_efer", vcpu),
        *(_field(f"{name}_base", Field[f"GUEST_{name.upper()}_BASE"], SYSTEM, 64, "data_ptr")
          for name in ("cs", "ss", "ds", "es", "gdtr", "idtr", "ldtr", "tr")),
        *(_field(f"{name}_limit", Field[f"GUEST_{name.upper()}_LIMIT"], SYSTEM, 32, "uint32")
          for name in ("cs", "ss", "ds", "es", "fs", "gs", "gdtr", "idtr", "ldtr", "tr")),
        *(_field(f"{name}_rights", Field[f"GUEST_{name.upper()}_AR_BYTES"], SYSTEM, 32, "uint32")
          for name in ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")),
        *(_field(name, Field[f"GUEST_{name.upper()}_SELECTOR"], SYSTEM, 32, "uint32")
          for name in ("ldtr", "tr")),
        *(_dr(number) for number in range(4)),
        _plain("dr6"),
        _field("dr7", Field.GUEST_DR7, SYSTEM, 64, "uint64"),
        *(_plain(name)
          for name in ("kernel_gs_base", "star", "lstar", "cstar", "fmask", "tsc_aux")),
        _field("sysenter_cs", Field.GUEST_SYSENTER_CS, SYSTEM, 32, "uint32"),
        _field("sysenter_esp", Field.GUEST_SYSENTER_ESP, SYSTEM, 64, "data_ptr"),
        _field("sysenter_eip", Field.GUEST_SYSENTER_EIP, SYSTEM, 64, "code_ptr"),
        _field("pat", Field.GUEST_IA32_PAT, SYSTEM, 64, "uint64"),
        Register("tsc", SYSTEM, 64, lambda v: v.vcpu.tsc(), None, "uint64", vcpu),
        _field("interruptibility", Field.GUEST_INTERRUPTIBILITY_INFO, SYSTEM, 32, "uint32"),
    ]  # fmt: skip


def _of_exit(name: str, attribute: str, bits: int = 64, kind: str = "") -> Register:
    def read(view: View) -> int:
        return 0 if view.last_exit is None else int(getattr(view.last_exit, attribute))

    return Register(name, VMX, bits, read, None, kind or f"uint{bits}", "vmx")


def _vmx() -> list[Register]:
    """About the last exit of this virtual CPU, and the clocks; all of it read-only."""

    def field(name: str, source: Field, bits: int) -> Register:
        return Register(name, VMX, bits, lambda v: v.vcpu.vmcs[source], None, f"uint{bits}", "vmx")

    return [
        _of_exit("exit_reason", "reason", 32),
        _of_exit("exit_qual", "qualification"),
        _of_exit("guest_phys", "guest_physical"),
        _of_exit("guest_linear", "guest_linear", kind="data_ptr"),
        _of_exit("intr_info", "interruption_info", 32),
        _of_exit("intr_error", "interruption_error", 32),
        _of_exit("idt_vectoring", "idt_vectoring_info", 32),
        _of_exit("idt_error", "idt_vectoring_error", 32),
        _of_exit("instr_len", "instruction_length", 32),
        _of_exit("instr_info", "instruction_info", 32),
        _of_exit("exit_number", "sequence"),
        _of_exit("exit_cycle", "cycle"),
        Register("cycle", VMX, 64, lambda v: v.vcpu.pcpu.clock.now, None, "uint64", "vmx"),
        Register("insn_count", VMX, 64, lambda v: v.vcpu.pcpu.instructions, None, "uint64", "vmx"),
        field("vpid", Field.VIRTUAL_PROCESSOR_ID, 32),
        field("eptp", Field.EPT_POINTER, 64),
        field("entry_intr_info", Field.VM_ENTRY_INTR_INFO_FIELD, 32),
        field("pin_controls", Field.PIN_BASED_VM_EXEC_CONTROL, 32),
        field("proc_controls", Field.CPU_BASED_VM_EXEC_CONTROL, 32),
        field("proc_controls2", Field.SECONDARY_VM_EXEC_CONTROL, 32),
        field("exception_bitmap", Field.EXCEPTION_BITMAP, 32),
    ]


def _composite(name: str, parts: tuple[Register, ...]) -> Register:
    """One register of many: `info registers vmx` shows them all, `$vmx.cycle` is one of them.

    gdb's x86 port knows no register groups but its own: a group of that name would stay empty.
    """

    def read(view: View) -> int:
        data = b"".join(
            (part.read(view) & (1 << part.bits) - 1).to_bytes(part.size, "little") for part in parts
        )
        return int.from_bytes(data, "little")

    return Register(name, VMX, sum(part.bits for part in parts), read, None, f"{name}_fields")


def _in_g() -> list[Register]:
    fpu, sse = fpu_registers(Register, CORE, SSE)
    return [*_core(), *fpu, *sse, *_bases()]


IN_G: Final = tuple(_in_g())
"""What `g` carries."""
VMX_PARTS: Final = tuple(_vmx())
"""The fields of the register `vmx`; each is a register of its own too."""
ALL: Final = (*IN_G, *_system(), *VMX_PARTS, _composite("vmx", VMX_PARTS))
"""Every register, by its number."""
BY_NAME: Final = {register.name: register for register in ALL}
