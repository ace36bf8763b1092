"""Tour 1.2: a virtual CPU, and the loop that runs it: enter, look at the exit, handle it, again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwmodel.arch.cpuid import Cpuid
from hwmodel.arch.paging import InvVpid
from hwmodel.arch.vmcs import Field
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import Vmcs
from vmm.activity import Activity
from vmm.apicv import ApicHardware, VirtualApic, deliver_virtual
from vmm.controls import set_controls, withhold
from vmm.devices.platform import Board
from vmm.dialect_view import DialectView
from vmm.exits.table import handlers_of
from vmm.inject import deliver_pending, looked
from vmm.memory.guest import GuestMemory
from vmm.memory.pager import Pager
from vmm.outcome import Outcome
from vmm.pv.roster import Roster
from vmm.watchers import Watchers

if TYPE_CHECKING:
    from vmm.memory.shadow.tables import ShadowTables
    from vmm.pv.xen.domain import XenPv
    from vmm.technique.shadow import Shadow

Enter = Callable[[int], Exit]
StopGuest = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every vCPU of a VM shares. `stop` ends the run; `unknown` hears of unknown MSRs."""

    machine: Sequence[Pcpu]
    """The physical CPUs; every vCPU starts on the first."""
    board: Board
    memory: GuestMemory
    cpuid: Cpuid
    cr4_bits: int
    efer_bits: int
    watchers: Watchers
    stop: StopGuest
    is_stopped: Callable[[], bool]
    unknown: Callable[[str, int, str], None]
    dialects: Roster
    pager: Pager
    give_turn: Callable[[int], bool]
    """End the turn that runs in favour of another vCPU, if that one could run."""
    yield_turn: Callable[[], bool]
    """End it in favour of whoever could run, if there is one."""
    shadow_tables: "ShadowTables | None" = None
    traps: bool = False
    """Whether the guest is held by the trap technique."""
    apic_hardware: ApicHardware | None = None
    domain: "XenPv | None" = None
    """What the guest is a virtual CPU of under Xen PV."""


class Vcpu(DialectView):
    """One virtual CPU: a VMCS, its local APIC, and where it stands."""

    def __init__(self, index: int, around: Surroundings) -> None:
        """Wire the vCPU to the rooms that its handlers use."""
        self.index = index
        self.machine: Final = around.machine
        self.pcpu = around.machine[0]
        self.board = around.board
        self.memory: Final = around.memory
        self.cpuid = around.cpuid
        self.cr4_bits: Final = around.cr4_bits
        self.efer_bits: Final = around.efer_bits
        self.watchers: Final = around.watchers
        self.stop: Final = around.stop
        self.is_stopped: Final = around.is_stopped
        self.note_unknown: Final = around.unknown
        self.dialects = around.dialects
        self.pager: Final = around.pager
        self.entering: Final = around.dialects.entering
        self.give_turn, self.yield_turn = around.give_turn, around.yield_turn
        self.gave_turn = False
        self.turn_ends = 0
        self.vmcs = Vmcs()
        self.regs = self.vmcs.registers
        self.shadow = self._make_shadow(around)
        self.domain = around.domain
        self._entries: dict[int, tuple[Enter, Enter]] = {}
        self.enter, self.skip_and_enter = self._ways_in()
        self.handlers: Final = handlers_of(
            shadows=self.shadow is not None, traps=around.traps, pv=self.domain is not None
        )
        self.cpuid_answers: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self.lapic = around.board.lapics[index]
        self.lapic.timer.tsc = self.tsc
        self.apicv: VirtualApic | None = None
        if around.apic_hardware is not None:
            self.apicv = VirtualApic(around.apic_hardware, index, self.vmcs, self.lapic)
        self.deliver_pending: Final = (
            deliver_virtual if self.apicv else looked if self.domain else deliver_pending
        )
        self.reset()

    def _make_shadow(self, around: Surroundings) -> "Shadow | None":
        if around.shadow_tables is None:
            return None
        has_1g = "pdpe1gb" in self.cpuid.model.features
        from vmm.technique.shadow import Shadow
        from vmm.technique.trap import Trap

        technique = Trap if around.traps else Shadow
        return technique(self.vmcs, self.pcpu, self.memory, around.shadow_tables, has_1g)

    def reset(self) -> None:
        """Power-up: registers, controls, nothing pending."""
        self.vmcs.reset()
        if self.domain is None:  # whose guests know no VT-x
            set_controls(self.vmcs, self.memory, self.pcpu.capabilities, self.index)
            withhold(self.vmcs, self.cpuid.model.features)
            self.hide_tsc()
        if self.shadow is not None:
            self.shadow.prepare()
        if self.apicv is not None:
            self.apicv.prepare()
        self.pcpu.forget(self.vmcs)
        self.activity = Activity.RUNNING if self.index == 0 else Activity.WAIT_FOR_SIPI
        self.look_for_events = True
        self.nmi_pending = self.kicked = False
        self.awaited_page = 0
        self.runnable_since = self.pcpu.clock.now
        self.msrs: dict[int, int] = {}
        self.random_state = self.index
        self.dialects.reset(self.index)

    def move_to(self, pcpu: Pcpu) -> None:
        """Go on on another physical CPU of the machine.

        As KVM does (vmx_vcpu_load_vmcs()), what that one remembers of this vCPU's page tables is
        dropped: it may have changed them since.
        """
        if pcpu is self.pcpu:
            return
        self.pcpu.sync(self.vmcs)
        self.pcpu.forget(self.vmcs)
        self.pcpu = pcpu
        pcpu.forget(self.vmcs)
        pcpu.invvpid_here(InvVpid.SINGLE_CONTEXT, self.vmcs[Field.VIRTUAL_PROCESSOR_ID])
        if self.shadow is not None:
            self.shadow.move_to(pcpu)
        self.enter, self.skip_and_enter = self._ways_in()

    def _ways_in(self) -> tuple[Enter, Enter]:
        """Return the ways into the guest on this pCPU: at RIP, and behind what exited."""
        pcpu, shadow = self.pcpu, self.shadow
        if id(pcpu) not in self._entries:
            self._entries[id(pcpu)] = (
                pcpu.entry_of(self.vmcs), pcpu.entry_of(self.vmcs, skips=True)
            )  # fmt: skip
        at_rip, behind = self._entries[id(pcpu)]
        return (shadow.entry_of(at_rip), shadow.entry_of(behind)) if shadow else (at_rip, behind)

    def run(self, ends: int) -> None:
        """Run until cycle `ends`, a device's event, a halt or the end of the run.

        `step` and `handle` written out: this is the way of every exit that nobody watches.
        """
        handlers, skip_and_enter, SKIP = self.handlers, self.skip_and_enter, Outcome.SKIP  # noqa: N806
        enter, watchers, clock = self.enter, self.watchers, self.pcpu.clock
        self.turn_ends = until = ends
        while True:
            if self.look_for_events:  # every handler that touches a device sets it
                event, ends = self.board.next_event(), self.turn_ends
                until = ends if event is None or event > ends else event
            if clock.now >= until:  # an exit takes time too
                return
            if self.look_for_events:
                self.deliver_pending(self)
            vmexit = enter(until)
            if watchers.exits:
                outcome = self.handle(vmexit)
            else:
                outcome = handlers[vmexit.reason](self, vmexit)
                while outcome is SKIP and not self.look_for_events and clock.now < until:
                    if watchers.exits:  # since this very exit
                        break
                    vmexit = skip_and_enter(until)
                    outcome = handlers[vmexit.reason](self, vmexit)
                if outcome is SKIP:
                    self.vmcs.skip_exit()
                    continue
            if outcome is Outcome.HALT and self.activity is Activity.RUNNING:
                self.halt()
            if outcome is not Outcome.RESUME:
                return

    def step(self, until: int) -> Exit:
        """Enter once, until cycle `until` at the latest; nothing is done about the exit yet."""
        if self.look_for_events:
            self.deliver_pending(self)
        return self.enter(until)

    def handle(self, vmexit: Exit) -> Outcome:
        """Do what software in root mode does about an exit; RIP moves here and nowhere else."""
        if self.watchers.exits and self._is_taken_by_watcher(vmexit):
            return Outcome.RESUME
        outcome = self.handlers[vmexit.reason](self, vmexit)
        if outcome is Outcome.SKIP:
            self.vmcs.skip_exit()
            return Outcome.RESUME
        if outcome is Outcome.HALT:
            self.halt()
        return outcome

    def _is_taken_by_watcher(self, vmexit: Exit) -> bool:
        if vmexit.is_stop:
            return False
        seen = vmexit.copy()
        self.watchers.vmexit(self, seen)
        return seen.handled

    def after_step(self, vmexit: Exit) -> Outcome:
        """Handle what ended a single step: nothing more to do if that was its deadline."""
        return Outcome.RESUME if vmexit.name == "DEADLINE" else self.handle(vmexit)

    def init_signal(self) -> None:
        """INIT: registers as after reset, but for x87/SSE and CR0's cache bits; wait for SIPI."""
        msrs, tsc_offset = self.msrs, self.tsc_offset()
        self.reset()
        self.msrs, self.vmcs[Field.TSC_OFFSET] = msrs, tsc_offset
        self.activity = Activity.WAIT_FOR_SIPI

    def startup(self, vector: int) -> None:
        """SIPI: start in real mode at vector * 4096, if it is waited for."""
        if self.activity is not Activity.WAIT_FOR_SIPI:
            return
        self.vmcs[Field.GUEST_CS_SELECTOR] = vector << 8
        self.vmcs[Field.GUEST_CS_BASE] = vector << 12
        self.regs.rip = 0
        self.start_waiting(Activity.RUNNING)
