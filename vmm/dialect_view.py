"""A virtual CPU as dialects see it: `vmm.pv.dialect.Processor` over VMCS, local APIC and turns."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from hwmodel.arch.controls import Primary
from hwmodel.arch.cpuid import Cpuid
from hwmodel.arch.events import Vector
from hwmodel.arch.exits import ExitReason
from hwmodel.arch.paging import InvVpid
from hwmodel.arch.vmcs import Field
from hwmodel.timing.ledger import Heading
from vmm.activity import Activity, Sleeper
from vmm.apicv import VirtualApic
from vmm.controls import PLE_WINDOW
from vmm.devices.lapic_bus import EVERYONE, DeliveryMode, Message
from vmm.devices.lapic_eoi import ends_silently
from vmm.devices.lapic_registers import Reg
from vmm.inject import inject_exception
from vmm.pv.dialect import Processor
from vmm.pv.roster import Roster

if TYPE_CHECKING:
    from vmm.technique.shadow import Shadow

_VALID_AND_TYPE: Final = 1 << 31 | 7 << 8  # VM-entry interruption information
_EXTERNAL: Final = 1 << 31
_IF: Final = 1 << 9
_LMA: Final = 1 << 10
_RDTSC_EXITING: Final = int(Primary.of(rdtsc_exiting=1))
_SHADOW: Final = 0b11  # blocking by STI, by MOV SS


class DialectView(Sleeper):
    """What dialects ask of a virtual CPU; `Vcpu` is one."""

    index: int
    dialects: Roster
    give_turn: Callable[[int], bool]
    apicv: VirtualApic | None
    shadow: "Shadow | None"
    cpuid: Cpuid
    yield_turn: Callable[[], bool]
    place_near: Callable[[int], None] | None = None
    """Have the scheduler prefer the node of a page of its memory; None: there are no nodes."""

    def write_tsc(self, value: int) -> None:
        """The guest writes its time-stamp counter: those who tell time by it are told."""
        self.set_tsc(value)
        for hook in self.dialects.tsc_changed:
            hook(self)

    def prefer(self, gpa: int) -> None:
        """Place it near a page of its memory, where a scheduler can."""
        if self.place_near is not None:
            self.place_near(gpa)

    def shown_tsc(self) -> int:
        """Return what RDTSC shows: in steps, where a dialect asks for that."""
        tsc, step = self.tsc(), self.dialects.tsc_step
        return tsc - tsc % step if step else tsc

    def hide_tsc(self) -> None:
        """Have RDTSC exit, if what it shows is not the TSC."""
        if self.dialects.tsc_step:
            self.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= _RDTSC_EXITING

    def scheduled(self) -> None:
        """It has the physical CPU, which another one had."""
        self.vmcs[Field.PLE_WINDOW] = PLE_WINDOW
        self.vmcs.book_stolen(self.waited())
        for hook in self.dialects.scheduled:
            hook(self)

    def descheduled(self) -> None:
        """Another one gets the physical CPU."""
        if self.activity is Activity.RUNNING:
            self.runnable_since = self.pcpu.clock.now
        for hook in self.dialects.descheduled:
            hook(self)

    def rip(self) -> int:
        """Return where its code stands."""
        return int(self.regs.rip)

    def reschedule(self) -> None:
        """A dialect's next event is another one now."""
        self.board.reschedule()
        self.look_for_events = True

    def work(self, operations: int) -> None:
        """The hypervisor carries out several operations in one hypercall: each takes its time."""
        if cycles := operations * self.pcpu.operation_cycles:
            self.pcpu.book(self.vmcs, Heading.HYPERVISOR, cycles, ExitReason.VMCALL)

    def load_cr3(self, value: int) -> bool:
        """Load CR3 as MOV does; False where that would be #GP, or PAE paging's entries are due."""
        if not self.regs.efer & _LMA or value >> self.cpuid.model.physical_bits:
            return False
        self.regs.cr3 = value
        if self.shadow is not None:
            self.shadow.reload()
        self.flush_translations()
        return True

    def drop_translation(self, linear: int) -> None:
        """Drop the translation of one linear address: the shadow's too."""
        if self.shadow is not None:
            self.shadow.invalidate(linear)
        else:
            vpid = self.vmcs[Field.VIRTUAL_PROCESSOR_ID]
            self.pcpu.invvpid(InvVpid.ADDRESS, vpid, linear)

    def flush_translations(self) -> None:
        """Drop what the processor remembers of its page tables: of its VPID, and no other's."""
        self.pcpu.invvpid(InvVpid.SINGLE_CONTEXT, self.vmcs[Field.VIRTUAL_PROCESSOR_ID])

    def answers_to(self, apic_id: int) -> bool:
        """Whether a message to the physical destination `apic_id` is for it, and for it alone."""
        return apic_id != EVERYONE and self.lapic.is_addressed(apic_id, logical=False)

    def interrupt(self, mode: int, vector: int) -> bool:
        """Hand its local APIC a message; whether it was taken."""
        self.look_for_events = True
        return self.lapic.accept(Message(DeliveryMode(mode), vector, self.index))

    def yield_to(self, index: int) -> None:
        """End its turn in favour of processor `index`, if that one could run."""
        self.gave_turn = self.give_turn(index)

    def yield_to_any(self) -> None:
        """End its turn in favour of whoever waits for one."""
        self.gave_turn = self.yield_turn()

    def is_asleep(self) -> bool:
        """Whether it could not run if it had a turn."""
        return self.activity is not Activity.RUNNING

    def turn_over(self) -> int:
        """Its turn ends: return for how many cycles it goes on nevertheless, holding a lock."""
        return sum(hook(self) for hook in self.dialects.turn_over)

    def before_apic(self, settle: Callable[[Processor], None]) -> None:
        """Have `settle` called before its local APIC looks at or shows what is in service."""
        self.lapic.settle = partial(settle, self)

    def end_of_interrupt(self) -> None:
        """End the highest interrupt in service."""
        self.lapic.write_register(Reg.EOI, 0)

    def in_service(self) -> int | None:
        """Return the vector of the highest interrupt in service."""
        self.lapic.settle()
        vector = self.lapic.page.highest(Reg.ISR)
        return None if vector < 0 else vector

    def ends_silently(self) -> bool:
        """Whether ending the highest interrupt in service would do nothing but that.

        Where the processor has the local APIC that is nobody's question: ends do not exit.
        """
        return self.apicv is None and ends_silently(self.lapic.page)

    def takes_interrupts(self) -> bool:
        """Whether an event can go in now: interrupts on, no shadow, nothing else on its way."""
        blocked = self.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & _SHADOW
        return bool(self.regs.rflags & _IF) and not blocked and not self.has_event()

    def load(self, linear: int, size: int) -> bytes | None:
        """Return guest memory by linear address; None where that would fault."""
        data = self.pcpu.read(self.vmcs, linear, size)
        return data if isinstance(data, bytes) else None

    def store(self, linear: int, data: bytes) -> bool:
        """Write guest memory by linear address; False where that would fault."""
        return self.pcpu.write(self.vmcs, linear, data) is None

    def raise_page_fault(self, address: int) -> None:
        """Make the next entry raise #PF with error code 0."""
        inject_exception(self, Vector.PF, 0, address)

    def injects_interrupt(self) -> bool:
        """Whether the next entry injects an external interrupt."""
        return self.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] & _VALID_AND_TYPE == _EXTERNAL
