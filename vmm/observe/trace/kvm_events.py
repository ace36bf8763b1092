"""Records as the trace events of KVM: which event each is, and the text behind the colon.

Formats are those of Linux's arch/x86/kvm/trace.h and include/trace/events/kvm.h, 6.x. What a
handler answered (CPUID's registers, an MSR's value) is known at the entry after it, and told there.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.operations import Operation
from hwmodel.cpu.recording import Note
from vmm.observe.trace.records import Enter, Leave, Record, Told, Trace
from vmm.observe.trace.symbols import (
    APIC_REGISTERS,
    DELIVERY_MODES,
    EMULATION_MODES,
    EXCEPTIONS,
    EXIT_FLAGS,
    SHORTHANDS,
    symbolic,
)
from vmm.pv.xen.abi import Call

_NAMES: Final = {int(reason): reason.name for reason in (*R, *Operation)}
_LOW: Final = 0xFFFF_FFFF
_VALID: Final = 1 << 31
_XAPIC: Final = 0xFEE00  # the page of local APICs, by default
_ICR, _ICR2, _X2APIC = 0x300, 0x310, 0x800


class KvmEvent(NamedTuple):
    """One line of a trace."""

    vcpu: int
    cycle: int
    name: str
    text: str


class _Port(NamedTuple):
    """A port access, with its repetitions."""

    told: Told
    times: int


def _call_text(leave: Leave, *, pv: bool) -> str:
    """Return number and arguments; of a Xen PV guest by its ABI, as far as they are recorded.

    Its number is what left: of a multicall the entry, whose arguments are in memory.
    """
    if not pv:
        text = f"nr 0x{leave.rax:x} a0 0x{leave.rbx:x} a1 0x{leave.rcx:x} "
        return text + f"a2 0x{leave.rdx:x} a3 0x{leave.rsi:x}"
    names = {int(call): call.name.lower() for call in Call}
    number = leave.qualification
    text = f"nr 0x{number:x} {names.get(number, 'unknown')}"
    single = number == leave.rax & _LOW
    return text + (f" a1 0x{leave.rsi:x} a2 0x{leave.rdx:x}" if single else " in a multicall")


class KvmEvents:
    """Tells a trace, event by event."""

    def __init__(self, trace: Trace) -> None:
        """Nothing is told yet."""
        self._trace: Final = trace
        self._left: Final[dict[int, Leave]] = {}
        self._halted: Final[dict[int, int]] = {}
        self._icr2: Final[dict[int, int]] = {}
        self._port: _Port | None = None
        self._clock: Final = trace.header.frequency
        self._pv: Final = trace.header.technique == "pv"

    def __iter__(self) -> Iterator[KvmEvent]:
        for record in self._trace:
            yield from self._flush(record)
            if isinstance(record, Leave):
                yield from self._leave(record)
            elif isinstance(record, Enter):
                yield from self._enter(record)
            else:
                yield from _told(self, record)
        yield from self._flush(None)

    def _flush(self, coming: Record | None) -> Iterator[KvmEvent]:
        """A port that is accessed again and again by one instruction is one event."""
        held = self._port
        if held is None:
            return
        told = held.told
        if isinstance(coming, Told) and (coming.note, coming.a, coming.b, coming.vcpu) == (
            told.note, told.a, told.b, told.vcpu,
        ):  # fmt: skip
            return
        self._port = None
        text = f"pio_{'write' if told.note is Note.PORT_OUT else 'read'} at 0x{told.a:x} "
        text += f"size {told.b} count {held.times} val 0x{told.c & _LOW:x} "
        yield _at(told, "kvm_pio", text + ("(...)" if held.times > 1 else ""))

    def port(self, told: Told) -> Iterator[KvmEvent]:
        """Hold an access back until it is known that no other follows."""
        held = self._port
        self._port = _Port(held.told, held.times + 1) if held else _Port(told, 1)
        return iter(())

    def memory(self, told: Told) -> Iterator[KvmEvent]:
        """An access to a device's memory, and what it is if that is the local APIC."""
        writes = told.note is Note.MMIO_WRITE
        text = (
            f"mmio {'write' if writes else 'read'} len {told.b} gpa 0x{told.a:x} val 0x{told.c:x}"
        )
        yield _at(told, "kvm_mmio", text)
        if told.a >> 12 == _XAPIC:
            yield from self._apic(told, told.a & 0xFF0, told.c & _LOW, writes=writes)

    def halt(self, told: Told) -> Iterator[KvmEvent]:
        """Remember since when it sleeps."""
        self._halted[told.vcpu] = told.cycle
        return iter(())

    def wake(self, told: Told) -> Iterator[KvmEvent]:
        """It runs again."""
        since = self._halted.pop(told.vcpu, None)
        if since is not None:
            ns = (told.cycle - since) * 1_000_000_000 // self._clock
            yield _at(told, "kvm_vcpu_wakeup", f"wait time {ns} ns, polling valid")

    def _leave(self, leave: Leave) -> Iterator[KvmEvent]:
        if leave.is_stop:
            return
        self._left[leave.vcpu] = leave
        yield _at(leave, "kvm_exit", _exit_text(leave))
        reason = leave.reason & 0xFFFF
        if reason == R.EPT_VIOLATION:
            text = f"vcpu {leave.vcpu} rip 0x{leave.rip:x} address 0x{leave.physical:016x} "
            yield _at(leave, "kvm_page_fault", text + f"error_code 0x{_fault_code(leave):x}")
        if _is_emulated(leave):
            yield _at(leave, "kvm_emulate_insn", _instruction(leave))
        if reason == R.VMCALL:
            yield _at(leave, "kvm_hypercall", _call_text(leave, pv=self._pv))
        if reason == R.CR_ACCESS and leave.qualification >> 4 & 3 == 0:
            number, value = leave.qualification & 15, leave.operand
            yield _at(leave, "kvm_cr", f"cr_write {number:x} = 0x{value:x}")

    def _enter(self, enter: Enter) -> Iterator[KvmEvent]:
        left = self._left.pop(enter.vcpu, None)
        if left is not None:
            yield from self._answers(left, enter)
        yield from _injection(left, enter)
        if left is not None:
            text = f"vcpu {enter.vcpu}, rip 0x{enter.rip:x}"
            yield _at(enter, "kvm_entry", text)

    def _answers(self, left: Leave, enter: Enter) -> Iterator[KvmEvent]:
        reason = left.reason & 0xFFFF
        if reason == R.CPUID:
            text = f"func {left.rax & _LOW:x} idx {left.rcx & _LOW:x} rax {enter.rax:x} "
            text += f"rbx {enter.rbx:x} rcx {enter.rcx:x} rdx {enter.rdx:x}, cpuid entry found"
            yield _at(enter, "kvm_cpuid", text)
        elif reason in (R.MSR_READ, R.MSR_WRITE):
            yield from self._msr(left, enter, writes=reason == R.MSR_WRITE)

    def _msr(self, left: Leave, enter: Enter, *, writes: bool) -> Iterator[KvmEvent]:
        number = left.rcx & _LOW
        values = left if writes else enter
        value = values.rdx << 32 & _LOW << 32 | values.rax & _LOW
        refused = enter.event & 0x8000_07FF == _VALID | 3 << 8 | 13
        if refused and not writes:
            value = 0
        elif not refused and _X2APIC <= number < _X2APIC + 0x100:
            yield from self._apic(enter, (number - _X2APIC) << 4, value, writes=writes)
        text = f"msr_{'write' if writes else 'read'} {number:x} = 0x{value:x}"
        yield _at(enter, "kvm_msr", text + (" (#GP)" if refused else ""))

    def _apic(
        self, at: Enter | Told, register: int, value: int, *, writes: bool
    ) -> Iterator[KvmEvent]:
        name = symbolic(APIC_REGISTERS, register)
        yield _at(at, "kvm_apic", f"apic_{'write' if writes else 'read'} {name} = 0x{value:x}")
        if writes and register == _ICR2:
            self._icr2[at.vcpu] = value >> 24
        if writes and register == _ICR:
            wide = isinstance(at, Enter)  # x2APIC's ICR is one register of 64 bits
            destination = value >> 32 if wide else self._icr2.get(at.vcpu, 0)
            yield _at(at, "kvm_apic_ipi", _ipi_text(value & _LOW, destination))


def _at(record: Record, name: str, text: str) -> KvmEvent:
    cycle = record.left_at if name == "kvm_exit" else record.cycle  # type: ignore[union-attr]
    return KvmEvent(record.vcpu, cycle, name, text)


def _exit_text(leave: Leave) -> str:
    name = symbolic(_NAMES, leave.reason & 0xFFFF)
    flags = "".join(f" {word}" for bit, word in EXIT_FLAGS if leave.reason & bit)
    return (
        f"vcpu {leave.vcpu} reason {name}{flags} rip 0x{leave.rip:x} "
        f"info1 0x{leave.qualification:016x} info2 0x{leave.vectoring:016x} "
        f"intr_info 0x{leave.event:08x} error_code 0x{leave.event_error:08x}"
    )


def _fault_code(leave: Leave) -> int:
    """The qualification as a page-fault error code, as KVM's handle_ept_violation makes it."""
    q = leave.qualification
    code = (q & 1) << 2 | (q >> 1 & 1) << 1 | (q >> 2 & 1) << 4 | bool(q & 0x38)
    return code | (1 << 32 if q >> 8 & 1 else 1 << 33)


def _is_emulated(leave: Leave) -> bool:
    string = leave.reason & 0xFFFF == R.IO_INSTRUCTION and leave.qualification >> 4 & 1
    return bool(string) or (leave.reason & 0xFFFF == R.EPT_VIOLATION and leave.code_bytes > 0)


def _instruction(leave: Leave) -> str:
    size = min(leave.length or leave.code_bytes, leave.code_bytes)
    code = " ".join(f"{byte:02x}" for byte in leave.code[:size])
    mode = symbolic(EMULATION_MODES, leave.code_size)
    return f"{leave.cs_base:x}:{leave.rip:x}:{code} ({mode})"


def _injection(left: Leave | None, enter: Enter) -> Iterator[KvmEvent]:
    event = enter.event
    if not event & _VALID:
        return
    kind, vector = event >> 8 & 7, event & 0xFF
    again = left is not None and left.vectoring & 0x8000_07FF == event & 0x8000_07FF
    suffix = " [reinjected]" if again else ""
    if kind in (0, 4):
        text = f"{'IRQ' if kind == 0 else 'Soft/INTn'} 0x{vector:x}{suffix}"
        yield _at(enter, "kvm_inj_virq", text)
    elif kind in (3, 5, 6):
        code = f" (0x{enter.error:x})" if event >> 11 & 1 else ""
        name = symbolic(EXCEPTIONS, vector)
        yield _at(enter, "kvm_inj_exception", f"{name}{code}{suffix}")


def _ipi_text(icr: int, destination: int) -> str:
    return (
        f"dst {destination:x} vec {icr & 0xFF} ({DELIVERY_MODES[icr >> 8 & 7]}|"
        f"{'logical' if icr & 1 << 11 else 'physical'}|"
        f"{'assert' if icr & 1 << 14 else 'de-assert'}|"
        f"{'level' if icr & 1 << 15 else 'edge'}|{SHORTHANDS[icr >> 18 & 3]})"
    )


def _accept(told: Told) -> str:
    mode, level = DELIVERY_MODES[told.a & 7], "level" if told.c else "edge"
    return f"apicid {told.vcpu:x} vec {told.b} ({mode}|{level})"


def _msi(told: Told) -> str:
    address, data = told.a, told.b
    return (
        f"dst {address >> 12 & 0xFF:x} vec {data & 0xFF} ({DELIVERY_MODES[data >> 8 & 7]}|"
        f"{'logical' if address & 4 else 'physical'}|{'level' if data & 1 << 15 else 'edge'}"
        f"{'|rh' if address & 8 else ''})"
    )


_TEXTS: Final[dict[Note, tuple[str, Callable[[Told], str]]]] = {
    Note.ACCEPT: ("kvm_apic_accept_irq", _accept),
    Note.EOI: ("kvm_eoi", lambda told: f"apicid {told.vcpu:x} vector {told.a}"),
    Note.LINE: ("kvm_set_irq", lambda told: f"gsi {told.a} level {told.b} source {told.c}"),
    Note.MSI: ("kvm_msi_set_irq", _msi),
}
_HELD: Final[dict[Note, Callable[[KvmEvents, Told], Iterator[KvmEvent]]]] = {
    Note.PORT_IN: KvmEvents.port,
    Note.PORT_OUT: KvmEvents.port,
    Note.MMIO_READ: KvmEvents.memory,
    Note.MMIO_WRITE: KvmEvents.memory,
    Note.HALT: KvmEvents.halt,
    Note.WAKE: KvmEvents.wake,
}


def _told(events: KvmEvents, told: Told) -> Iterator[KvmEvent]:
    if told.note in _HELD:
        yield from _HELD[told.note](events, told)
    elif told.note in _TEXTS:
        name, text = _TEXTS[told.note]
        yield _at(told, name, text(told))
