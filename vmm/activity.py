"""Whether a virtual CPU runs, sleeps or waits to be started, and what wakes it."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from vmm.architectural_view import ArchitecturalView
from vmm.devices.lapic import LocalApic
from vmm.devices.platform import Board

if TYPE_CHECKING:
    from vmm.pv.xen.domain import XenPv

_IF: Final = 1 << 9
_MASK64: Final = (1 << 64) - 1
_INTERRUPTED: Final = (
    -15
)  # vmm/pv/native/abi.py, Error.INTERRUPTED; the room above knows no dialect


def nothing() -> None:
    """Nobody hears it."""


class Activity(Enum):
    """What a virtual CPU does when it is its turn."""

    RUNNING = "running"
    HALTED = "halted"
    WAIT_FOR_SIPI = "wait-for-SIPI"
    WAIT_FOR_PAGE = "wait-for-page"
    WAIT_FOR_WAKE = "wait-for-wake"
    """In a dialect's hypercall, until another virtual CPU wakes it, or an event."""
    WAIT_A_WHILE = "wait-a-while"
    """The same, with a time-out."""


class Sleeper(ArchitecturalView):
    """The waking and sleeping half of a virtual CPU."""

    board: Board
    domain: "XenPv | None"
    index: int
    lapic: LocalApic
    activity: Activity
    look_for_events: bool
    nmi_pending: bool
    kicked: bool
    """Another one ended its next HLT beforehand."""
    awaited_page: int
    """Guest-physical, while it waits for memory that is swapped out."""
    became_ready: Callable[[], None] = staticmethod(nothing)
    """Hears that it woke up: a scheduler that has a physical CPU to spare for it."""
    gave_turn: bool
    """Whether the exit that is being handled gave the turn away."""
    runnable_since: int
    """The cycle from which on it is what it is: could run while another has its turn, sleeps."""

    def halt(self) -> None:
        """Finish HLT: sleep behind it, unless it was kicked before."""
        self.vmcs.skip_exit()
        if self.kicked:
            self.kicked = False
        else:
            self.activity = Activity.HALTED
            self.runnable_since = self.pcpu.clock.now

    def kick(self) -> None:
        """Wake it from HLT whatever its interrupt flag says, or end its next HLT beforehand."""
        self.kicked = True
        self.wake()

    def request_nmi(self) -> None:
        """An NMI arrived."""
        self.nmi_pending = True
        self.wake()

    def wake(self) -> None:
        """Something happened that may end HLT; called at the very cycle."""
        if self.activity is Activity.HALTED and (self.kicked or self.has_wake_event()):
            self.kicked = False
            self.start_waiting(Activity.RUNNING)
            if self.domain is not None:
                self.domain.woke(self.index)
        elif self.is_waiting() and self.has_wake_event():
            self.end_wait(_INTERRUPTED)

    def wait(self, *, timed: bool) -> None:
        """Sleep behind the hypercall that is being handled."""
        self.activity = Activity.WAIT_A_WHILE if timed else Activity.WAIT_FOR_WAKE
        self.runnable_since = self.pcpu.clock.now
        self.gave_turn = True

    def is_waiting(self) -> bool:
        """Whether it sleeps in a hypercall."""
        return self.activity in (Activity.WAIT_FOR_WAKE, Activity.WAIT_A_WHILE)

    def end_wait(self, result: int) -> None:
        """Wake it from there, with that in RAX."""
        mask = _MASK64 if self.code_bits() == 64 else _MASK64 >> 32
        self.regs.rax = result & mask
        self.start_waiting(Activity.RUNNING)

    def park(self) -> None:
        """Take it out of service, until it is started again."""
        self.activity = Activity.WAIT_FOR_SIPI

    def unpark(self) -> None:
        """Start it, if it is out of service."""
        if self.activity is Activity.WAIT_FOR_SIPI:
            self.start_waiting(Activity.RUNNING)

    def wait_for_page(self, page: int) -> None:
        """It met memory that is swapped out."""
        self.activity, self.awaited_page = Activity.WAIT_FOR_PAGE, page
        self.runnable_since = self.pcpu.clock.now

    def page_arrived(self, page: int) -> None:
        """Some memory is back."""
        if self.activity is Activity.WAIT_FOR_PAGE and self.awaited_page == page:
            self.start_waiting(Activity.RUNNING)

    def start_waiting(self, activity: Activity) -> None:
        """From now on it is `activity`; if that is running, it waits for its turn."""
        self.activity = activity
        self.runnable_since = self.pcpu.clock.now
        self.look_for_events = True
        self.became_ready()

    def waited(self) -> int:
        """Return for how many cycles it could have run and did not, up to now."""
        return self.pcpu.clock.now - self.runnable_since

    def kept_waiting(self) -> int:
        """Return for how many cycles it has been waiting for its turn."""
        return self.waited() if self.activity is Activity.RUNNING else 0

    def is_runnable(self) -> bool:
        """Whether the scheduler may run it now; a halted one wakes for an event it can take."""
        if self.activity is not Activity.RUNNING:
            self.wake()
        return self.activity is Activity.RUNNING

    def can_wake(self) -> bool:
        """Whether it runs, or is halted in a way that some later event can end."""
        if self.activity not in (Activity.HALTED, Activity.WAIT_FOR_WAKE):
            return self.activity is not Activity.WAIT_FOR_SIPI
        takes_interrupts = bool(self.regs.rflags & _IF)
        return takes_interrupts or self.nmi_pending or self.board.can_send_nmi()

    def has_wake_event(self) -> bool:
        """Whether something came that ends HLT."""
        if self.domain is not None:
            return self.domain.may_wake(self.index)
        return self.nmi_pending or (bool(self.regs.rflags & _IF) and self.lapic.interrupt_pending())
