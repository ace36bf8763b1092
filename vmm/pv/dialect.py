"""What a dialect is: CPUID leaves, MSRs, hypercalls, shared pages and hooks under one name.

A guest finds dialects by their signatures at CPUID leaf 0x40000000 + 0x100 n. A dialect answers as
its specification says whatever the guest passes: it never raises for what a guest does. It sees a
virtual CPU through `Processor` and nothing else, so the rooms above are not its concern.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hwmodel.timing.clock import Clock
from vmm.memory.guest import GuestMemory

if TYPE_CHECKING:
    from vmm.devices.device import Device

State = dict[str, object]
"""A dialect written down: plain ints, strings, bools and lists of them, with the key "version"."""


class Leaf(NamedTuple):
    """What CPUID returns in EAX, EBX, ECX, EDX."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


class Processor(Protocol):
    """What a dialect may know of a virtual CPU, and do to it. Numbers are APIC identifiers."""

    @property
    def index(self) -> int:
        """Its number, which is its initial APIC identifier."""

    def tsc_offset(self) -> int:
        """Return guest TSC minus the machine's cycles."""

    def cpl(self) -> int:
        """Return the current privilege level."""

    def rip(self) -> int:
        """Return where its code stands: at the instruction that exited."""

    def work(self, operations: int) -> None:
        """Let the time pass that so many operations take."""

    def prefer(self, gpa: int) -> None:
        """Place it near a page of its memory, where the scheduler can."""

    def reschedule(self) -> None:
        """The dialect's next event is another one now."""

    def load_cr3(self, value: int) -> bool:
        """Load CR3 as MOV does; False where that would be #GP."""

    def drop_translation(self, linear: int) -> None:
        """Drop the translation of one linear address, as INVLPG does."""

    def flush_translations(self) -> None:
        """Drop what the processor remembers of this guest's page tables."""

    def waited(self) -> int:
        """Return for how many cycles it could have run and did not, since it last ran."""

    def answers_to(self, apic_id: int) -> bool:
        """Whether a message to the physical destination `apic_id` is for it, and for it alone."""

    def interrupt(self, mode: int, vector: int) -> bool:
        """Hand its local APIC a message of delivery mode `mode`; whether it was taken."""

    def kick(self) -> None:
        """Wake it from HLT; if it does not sleep, its next HLT is none."""

    def yield_to(self, index: int) -> None:
        """End its turn in favour of processor `index`, if that one could run."""

    def yield_to_any(self) -> None:
        """End its turn in favour of whoever waits for one."""

    def wait(self, *, timed: bool) -> None:
        """Sleep behind this hypercall until `end_wait` or an event that it takes.

        `timed`: somebody will call that at a certain time. An event puts -15 (INTERRUPTED of the
        native dialect) into RAX.
        """

    def is_waiting(self) -> bool:
        """Whether it sleeps in `wait`."""

    def end_wait(self, result: int) -> None:
        """Wake it from `wait` with `result` in RAX."""

    def is_asleep(self) -> bool:
        """Whether it could not run if it had a turn."""

    def has_wake_event(self) -> bool:
        """Whether it would take an interrupt or an NMI now that waits."""

    def before_apic(self, settle: "Callable[[Processor], None]") -> None:
        """Have `settle` called before its local APIC looks at or shows what is in service."""

    def end_of_interrupt(self) -> None:
        """End the highest interrupt in service."""

    def in_service(self) -> int | None:
        """Return the vector of the highest interrupt in service."""

    def ends_silently(self) -> bool:
        """Whether ending the highest interrupt in service would do nothing but that."""

    def takes_interrupts(self) -> bool:
        """Whether an event can go in now: interrupts on, nothing else on its way."""

    def load(self, linear: int, size: int) -> bytes | None:
        """Return guest memory by linear address; None where that would fault."""

    def store(self, linear: int, data: bytes) -> bool:
        """Write guest memory by linear address; False where that would fault."""

    def raise_page_fault(self, address: int) -> None:
        """Make the next entry raise #PF with error code 0 and `address` in CR2."""

    def injects_interrupt(self) -> bool:
        """Whether the next entry injects an external interrupt."""


class Console(Protocol):
    """Shows people what guests write."""

    def write(self, data: bytes) -> None:
        """Show bytes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a dialect knows of the VM. `epoch` is the date at cycle 0, in seconds since 1970.

    `apic_hz` is the input clock of the local APICs' timers, `seed` what all chance comes from;
    `console` takes what a guest writes for people.
    """

    memory: GuestMemory
    clock: Clock
    epoch: int
    tsc_hz: int
    apic_hz: int
    cpus: int
    seed: int = 0
    console: "Console | None" = None
    shut_down: "Callable[[int], None] | None" = None
    """Ends the guest, for a reason of enum Shutdown of Xen's."""


@dataclass(slots=True)
class Hypercall:
    """One call: number and arguments as wide as the guest's mode; `result` is signed."""

    number: int
    arguments: tuple[int, int, int, int, int, int]
    wide: bool
    """Whether it was made in 64-bit code."""
    others: tuple[int, int] = (0, 0)
    """R9 and R10, for dialects that use more."""


Hook = Callable[[Processor], None]
PageHook = Callable[[Processor, int], bool]
"""A guest-physical page; True if the guest was told and can run on."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The moments of a virtual CPU that a dialect wants to hear of; None costs nothing.

    `entering` comes before an entry for which events were looked at, after one was chosen;
    `scheduled` and `descheduled` when another virtual CPU had, or gets, the physical one;
    `tsc_changed` when the guest wrote its time-stamp counter; `page_absent` and `page_ready` when
    an access met memory that is swapped out, and when that is back; `rate_changed` when the
    processor's frequency did; `exited` comes at every exit, before its handler;
    `turn_over` answers for how many cycles a turn that ends should go on, mostly for none.
    """

    entering: Hook | None = None
    scheduled: Hook | None = None
    descheduled: Hook | None = None
    tsc_changed: Hook | None = None
    page_absent: PageHook | None = None
    page_ready: Callable[[int], None] | None = None
    rate_changed: Callable[[], None] | None = None
    exited: Hook | None = None
    turn_over: Callable[[Processor], int] | None = None


class Dialect(Protocol):
    """One paravirtual contract, offered to one VM."""

    name: str
    hides: frozenset[str]
    """Features of the CPU model that CPUID does not show beside this dialect."""
    events: "Device | None"
    """What it does by itself at certain cycles, timed as a device is."""
    tsc_step: int
    """The ticks in which the guest's TSC is shown, 0: as it is."""
    numbers: range
    """The hypercall numbers that are this dialect's; a number that is nobody's is the first's."""
    hooks: Hooks

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Return the CPUID leaves by number; the first is `base`, none is above `base` + 0xff."""

    def msrs(self) -> frozenset[int]:
        """Return the numbers of the MSRs that are this dialect's."""

    def read_msr(self, cpu: Processor, number: int) -> int | None:
        """RDMSR of one of `msrs()`; None is a #GP."""

    def write_msr(self, cpu: Processor, number: int, value: int) -> bool:
        """WRMSR of one of `msrs()`; False is a #GP."""

    def hypercall(self, cpu: Processor, call: Hypercall) -> int | None:
        """Carry out a hypercall and return its result; None if the number is not known here."""

    def refusal(self, cpu: Processor) -> int | None:
        """Return what a hypercall gets that `cpu` may not make now, None if it may."""

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs, once, before the first runs."""

    def begin_life(self, life: int) -> None:
        """The guest goes on from a snapshot from which others may go on too, as number `life`."""

    def reset(self, index: int) -> None:
        """Forget what virtual CPU `index` asked for: power-up or INIT."""

    def save(self) -> State:
        """Return the whole state."""

    def restore(self, state: State) -> None:
        """Take over a state that save() of the same version made."""
