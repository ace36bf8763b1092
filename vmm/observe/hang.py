"""`explain hang`: what each virtual CPU waits for, since when, and who could end it.

What sleeps is told by its state alone. Whether a CPU that runs only waits is seen by letting the
guest run on for a while and putting it back: then `spinning` tells the loop, the word that it looks
at, and which CPU changes that word, if any does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.vmcs import Field
from vmm.activity import Activity
from vmm.devices.lapic_registers import Reg
from vmm.observe.spin import Spin, find_spins
from vmm.vcpu import Vcpu
from vmm.vm import VM

_IF: Final = 1 << 9
_MASKED: Final = 1 << 16
_BLOCKED_BY: Final = ((1, "STI"), (2, "MOV SS"), (8, "an NMI that is being handled"))


@dataclass(frozen=True, slots=True)
class Waiting:
    """One virtual CPU. `since`: the cycle at which it came to be `state`; None: not known."""

    vcpu: int
    state: str
    since: int | None
    rip: int
    waits_for: tuple[str, ...]
    ends: tuple[str, ...]
    """What will end it, or who holds it; empty: nothing will."""
    spin: Spin | None = None


@dataclass(frozen=True, slots=True)
class HangStory:
    """All virtual CPUs at cycle `now`; `frequency` in Hz."""

    now: int
    frequency: int
    vcpus: tuple[Waiting, ...]

    @property
    def is_stuck(self) -> bool:
        """Whether nothing that can be foreseen will let any of them go on."""
        return not any(waiting.ends for waiting in self.vcpus)


def hang_story(vm: VM, *, ahead: int = 0) -> HangStory:
    """Say what each virtual CPU waits for.

    `ahead`: for how many cycles the guest may run on to find who spins, 0 for not at all. Its state
    is put back then, but not what it wrote to disks or sent.
    """
    spins = find_spins(vm, ahead) if ahead else {}
    parts = tuple(_waiting(vm, vcpu, spins.get(vcpu.index)) for vcpu in vm.vcpus)
    return HangStory(vm.clock.now, vm.clock.frequency, parts)


def _waiting(vm: VM, vcpu: Vcpu, spin: Spin | None) -> Waiting:
    match vcpu.activity:
        case Activity.WAIT_FOR_SIPI:
            return Waiting(
                vcpu.index, "wait-for-SIPI", vcpu.runnable_since, vcpu.regs.rip,
                ("a start-up IPI",), (),
            )  # fmt: skip
        case Activity.WAIT_FOR_PAGE:
            return Waiting(
                vcpu.index, "wait-for-page", vcpu.runnable_since, vcpu.regs.rip,
                (f"guest-physical page {vcpu.awaited_page:#x}, which is swapped out",),
                ("the page arrives",),
            )  # fmt: skip
        case Activity.WAIT_FOR_WAKE | Activity.WAIT_A_WHILE:
            until = " or its time-out" if vcpu.activity is Activity.WAIT_A_WHILE else ""
            return Waiting(
                vcpu.index, vcpu.activity.value, vcpu.runnable_since, vcpu.regs.rip,
                (f"a WAKE of the word at guest-physical {vcpu.regs.rbx:#x}{until}",),
                ("another virtual CPU wakes it",),
            )  # fmt: skip
        case Activity.HALTED:
            return _halted(vm, vcpu)
        case Activity.RUNNING:
            return _running(vm, vcpu, spin)


def _halted(vm: VM, vcpu: Vcpu) -> Waiting:
    takes = bool(vcpu.regs.rflags & _IF)
    waits = ["an interrupt" if takes else "an NMI: it halted with interrupts off"]
    waits += _held_back(vcpu)
    ends = []
    if vcpu.nmi_pending:
        ends.append("an NMI is pending")
    if takes:
        if vcpu.lapic.interrupt_pending():
            ends.append("an interrupt is pending")
        ends += _coming(vm)
    return Waiting(
        vcpu.index, "halted", vcpu.runnable_since, vcpu.regs.rip, tuple(waits), tuple(ends)
    )


def _held_back(vcpu: Vcpu) -> Iterator[str]:
    """Interrupts that were requested and cannot be taken, and why."""
    vector = vcpu.lapic.page.highest(Reg.IRR)
    if vector < 0:
        return
    served = vcpu.lapic.page.highest(Reg.ISR)
    if not vcpu.regs.rflags & _IF:
        yield f"vector {vector:#x} is requested, but interrupts are off"
    elif served >= 0 and served >> 4 >= vector >> 4:
        yield f"vector {vector:#x} is requested, but {served:#x} is in service: it was not ended"
    elif vcpu.lapic.page[Reg.TPR] >> 4 >= vector >> 4:
        yield f"vector {vector:#x} is requested, but the task priority is as high"


def _coming(vm: VM) -> Iterator[str]:
    """The devices that will do something by themselves, the next one first."""
    events = [
        (event, device.name)
        for device in vm.board.devices()
        if (event := device.next_event()) is not None
    ]
    for event, name in sorted(events)[:3]:
        yield f"{name} has an event at cycle {event}, in {event - vm.clock.now}"


def _running(vm: VM, vcpu: Vcpu, spin: Spin | None) -> Waiting:
    is_current = vcpu is vm.current
    state = "running" if is_current else "runnable"
    since = None if is_current else vcpu.runnable_since
    waits = [] if is_current else [f"its turn: vCPU {vm.current.index} has the physical CPU"]
    blocked = vcpu.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO]
    waits += [f"events are blocked by {name}" for bit, name in _BLOCKED_BY if blocked & bit]
    waits += _held_back(vcpu)
    if spin is None:
        return Waiting(vcpu.index, state, since, vcpu.regs.rip, tuple(waits), ("it runs",))
    waits.insert(0, spin.text)
    ends = (spin.release,) if spin.release else ()
    return Waiting(vcpu.index, "spinning", spin.since, vcpu.regs.rip, tuple(waits), ends, spin)


def hang_lines(story: HangStory, names: "dict[int, str] | None" = None) -> Iterator[str]:
    """Lines that tell of a hang; `names`: by vCPU, where its RIP is."""
    yield f"cycle {story.now}, {story.now / story.frequency:.6f} s after power-on"
    for waiting in story.vcpus:
        since = ""
        if waiting.since is not None:
            ago = (story.now - waiting.since) / story.frequency * 1e6
            since = f" since cycle {waiting.since} ({ago:.1f} us)"
        where = (names or {}).get(waiting.vcpu) or f"RIP {waiting.rip:#x}"
        yield f"vCPU {waiting.vcpu}: {waiting.state}{since}, at {where}"
        for text in waiting.waits_for:
            yield f"  waits for: {text}" if not text.startswith("vector") else f"  {text}"
        for text in waiting.ends:
            yield f"  ends when: {text}"
        if not waiting.ends:
            yield "  nothing that can be foreseen ends it"
    if story.is_stuck:
        yield "the guest hangs"
