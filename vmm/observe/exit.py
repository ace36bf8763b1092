"""`explain exit`: what exited and why, what its handler did about it, and what that cost.

`exit_story` only reads. `effects_of` is given something that runs the handler and says what was
another afterwards: registers, VMCS fields, what devices were asked, what the ledger booked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.qualification import QUALIFICATION
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.cpu.recording import Counters, Note
from hwmodel.timing.ledger import Heading
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import GPR_NAMES
from vmm.observe.trace.places import Places
from vmm.observe.trace.recording import header_of
from vmm.observe.trace.records import Told
from vmm.observe.trace.taps import Taps
from vmm.observe.why import Cause, why
from vmm.vcpu import Vcpu
from vmm.vm import VM

_QUIET: Final = frozenset(  # the exit's own account of itself
    field for field in Field if field.name.startswith(("VM_EXIT_", "IDT_VECTORING", "EXIT_QUALIF"))
)
_HAS_CODE: Final = 1 << 11


@dataclass(frozen=True, slots=True)
class ExitStory:
    """One exit, decoded. `qualification` is a Word where the reason has a format for it."""

    vcpu: int
    name: str
    number: int
    sequence: int
    cycle: int
    rip: int
    where: str
    qualification: Word | int
    details: dict[str, int]
    cause: Cause


@dataclass(frozen=True, slots=True)
class Effects:
    """What a handler changed: (before, after) by name; `asked` in order; `spent` by heading."""

    registers: dict[str, tuple[int, int]]
    fields: dict[str, tuple[int, int]]
    asked: tuple[str, ...]
    injects: str
    spent: dict[str, int]


def exit_story(vcpu: Vcpu, vmexit: Exit, where: str = "") -> ExitStory:
    """Decode an exit whose handler has not run. `where`: RIP by name, if names are known."""
    word = (
        QUALIFICATION.get(ExitReason(vmexit.reason)) if vmexit.reason in set(ExitReason) else None
    )
    is_number = vmexit.reason == ExitReason.EXCEPTION_NMI and vmexit.interruption_info & 0xFF != 1
    qualification = (
        vmexit.qualification if word is None or is_number else word(vmexit.qualification)
    )
    details = {
        name: value
        for name in (
            "instruction_length", "guest_linear", "guest_physical", "interruption_info",
            "interruption_error", "idt_vectoring_info", "idt_vectoring_error", "instruction_info",
        )
        if (value := getattr(vmexit, name))
    }  # fmt: skip
    return ExitStory(
        vcpu.index, vmexit.name, vmexit.reason, vmexit.sequence, vmexit.cycle, vmexit.rip, where,
        qualification, details, why(vcpu, vmexit),
    )  # fmt: skip


def effects_of(vm: VM, vcpu: Vcpu, handle: Callable[[], object]) -> Effects:
    """Run `handle` and say what it did. The VM is afterwards as the handler left it."""
    notes: list[Told] = []
    taps = Taps(vm, lambda kind, n, a, b, c: notes.append(Told(n, Note(kind), 0, a, b, c)))
    registers, fields = _registers(vcpu), _fields(vcpu)
    ledger = vm.pcpu.account().as_dict()
    try:
        handle()
    finally:
        taps.remove()
    after = vm.pcpu.account().as_dict()
    places = Places(header_of(vm).places)
    return Effects(
        _changes(registers, _registers(vcpu)),
        _changes(fields, _fields(vcpu)),
        tuple(text for told in notes if (text := _asked(told, places))),
        _injected(vcpu),
        {name: after[name] - ledger[name] for name in after if after[name] != ledger[name]},
    )


def with_price(effects: Effects, counters: Counters) -> Effects:
    """Add what the exit cost when it was made, and what an entry costs, which comes after it."""
    spent = dict(effects.spent)
    for heading in (Heading.EXIT, Heading.HYPERVISOR, Heading.DEVICE, Heading.ENTRY):
        if cycles := counters.price[heading.number]:
            spent[str(heading)] = spent.get(str(heading), 0) + cycles
    return replace(effects, spent=spent)


def _registers(vcpu: Vcpu) -> dict[str, int]:
    regs = vcpu.regs
    found = {name: regs[number] for number, name in enumerate(GPR_NAMES) if name != "rsp"}
    return found | {"rip": regs.rip, "rsp": regs.rsp, "rflags": regs.rflags}


def _fields(vcpu: Vcpu) -> dict[str, int]:
    same = {Field.GUEST_RIP, Field.GUEST_RSP, Field.GUEST_RFLAGS} | _QUIET
    return {field.name: vcpu.vmcs[field] for field in Field if field not in same}


def _changes(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (value, after[name]) for name, value in before.items() if after[name] != value}


def _asked(told: Told, places: Places) -> str:
    """One line for what a device or another processor was asked, empty for the rest."""
    match told.note:
        case Note.PORT_IN:
            return f"{places.port(told.a)}: read {told.b} from port {told.a:#x}: {told.c:#x}"
        case Note.PORT_OUT:
            return f"{places.port(told.a)}: wrote {told.b} to port {told.a:#x}: {told.c:#x}"
        case Note.MMIO_READ:
            return f"{places.memory(told.a)}: read {told.b} at {told.a:#x}: {told.c:#x}"
        case Note.MMIO_WRITE:
            return f"{places.memory(told.a)}: wrote {told.b} at {told.a:#x}: {told.c:#x}"
        case Note.ACCEPT:
            return f"local APIC {told.vcpu}: took vector {told.b:#x}"
        case Note.EOI:
            return f"local APIC {told.vcpu}: ended vector {told.a:#x}"
        case Note.LINE:
            return f"interrupt line {told.a}: {'up' if told.b else 'down'}"
        case Note.MSI:
            return f"message {told.b:#x} to {told.a:#x}"
        case Note.HALT:
            return f"vCPU {told.vcpu}: sleeps"
        case Note.WAKE:
            return f"vCPU {told.vcpu}: wakes"
        case Note.KICK:
            return f"vCPU {told.a}: kicked"
        case _:
            return ""


def _injected(vcpu: Vcpu) -> str:
    """What the next entry will inject."""
    info = vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD]
    if not info >> 31:
        return ""
    code = vcpu.vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE]
    suffix = f", error code {code:#x}" if info & _HAS_CODE else ""
    return f"vector {info & 0xFF:#x} of type {info >> 8 & 7}{suffix}"


def exit_lines(story: ExitStory, effects: Effects | None = None) -> Iterator[str]:
    """Lines that tell of an exit, and of its handler if that has run."""
    where = f", {story.where}" if story.where else ""
    yield f"exit {story.sequence}: {story.name} ({story.number}) of vCPU {story.vcpu}"
    yield f"  at RIP {story.rip:#x}{where}, cycle {story.cycle}"
    decoded = story.qualification
    yield f"  qualification {int(decoded):#x}" + (
        f": {decoded!r}" if isinstance(decoded, Word) else ""
    )
    for name, value in story.details.items():
        yield f"  {name.replace('_', ' ')} {value:#x}"
    yield f"why: {story.cause}"
    if effects is not None:
        yield from _effect_lines(effects)


def _effect_lines(effects: Effects) -> Iterator[str]:
    yield "the handler:"
    for line in effects.asked:
        yield f"  {line}"
    for name, (before, after) in {**effects.registers, **effects.fields}.items():
        yield f"  {name}: {before:#x} -> {after:#x}"
    if effects.injects:
        yield f"  the next entry injects {effects.injects}"
    if not (effects.asked or effects.registers or effects.fields or effects.injects):
        yield "  changed nothing"
    costs = ", ".join(f"{name} {cycles}" for name, cycles in effects.spent.items())
    yield f"cost in cycles: {costs or 'none'}"
