"""HYPERVISOR_sched_op (public/sched.h): yield, block, poll, shutdown."""

from collections.abc import Callable
from enum import Enum, IntEnum
from struct import Struct
from typing import Final

from vmm.pv.xen.abi import Errno
from vmm.pv.xen.events import PORTS, EventChannels
from vmm.pv.xen.guest import Caller
from vmm.pv.xen.timers import Timers

_POLL: Final = Struct("<QI4xQ")
_POLL_MAX: Final = 128


class After(Enum):
    """What follows a hypercall."""

    GO_ON = "go on"
    AGAIN = "again"  # the same SYSCALL is not over
    SLEEP = "sleep"
    YIELD = "yield"
    STOP = "stop"


class Shutdown(IntEnum):
    """SHUTDOWN_*."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


class SchedOp:
    """The operations; what the vCPU does next is in `after`."""

    def __init__(
        self, events: EventChannels, timers: Timers, shut_down: Callable[[int], None], vcpus: int
    ) -> None:
        """`shut_down` ends the domain, with the guest's reason."""
        self._events: Final = events
        self._timers: Final = timers
        self._shut_down: Final = shut_down
        self.after = After.GO_ON
        self.polled: list[list[int]] = [[] for _ in range(vcpus)]
        """By vCPU the ports that it waits for; empty: it does not poll."""
        self.timed_out = [False] * vcpus
        self.polls = 0
        """How many made a vCPU sleep."""

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out."""
        command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
        if command == 0:
            self.after = After.YIELD
        elif command == 1:
            self._block(cpu)
        elif command == 2:
            self._shut_down(int.from_bytes(cpu.read(at, 4), "little"))
            self.after = After.STOP
        elif command == 3:
            return self._poll(cpu, at)
        elif command == 5:
            cpu.read(at, 4)  # a reason for later
        elif command in (4, 7):
            return -Errno.PERM
        else:
            return -Errno.NOSYS
        return 0

    def _block(self, cpu: Caller) -> None:
        self._events.enable_upcalls(cpu.index)
        if not self._events.has_upcall(cpu.index):
            self._events.look_for_lost(cpu.index)
            self.after = After.SLEEP

    def _poll(self, cpu: Caller, at: int) -> int:
        """Sleep until a port is pending; in do_poll()'s order (xen/common/sched/core.c)."""
        ports, count, timeout = cpu.unpack(_POLL, at)
        if count > _POLL_MAX:
            return -Errno.INVAL
        if self._events.has_upcall(cpu.index):
            return 0
        wanted: list[int] = []
        for number in range(count):
            port = int.from_bytes(cpu.read(ports + 4 * number, 4), "little")
            if port >= PORTS:
                return -Errno.INVAL
            if self._events.is_pending(port):
                return 0
            wanted.append(port)
        if timeout and self._timers.is_past(timeout):
            return 0
        self.polls += 1
        self.polled[cpu.index] = wanted or [-1]
        self.timed_out[cpu.index] = False
        self._timers.set_poll(cpu.index, timeout or None)
        self.after = After.SLEEP
        return 0

    def pollers(self, port: int) -> list[int]:
        """Return the vCPUs that wait for a port, whichever vCPU it is bound to."""
        return [vcpu for vcpu, ports in enumerate(self.polled) if port in ports]

    def time_out(self, vcpu: int) -> None:
        """A poll has lasted long enough."""
        self.timed_out[vcpu] = True

    def may_wake(self, vcpu: int) -> bool:
        """Whether a sleeping vCPU has what it waits for; a poll ends then."""
        ports = self.polled[vcpu]
        if not ports:
            return self._events.has_upcall(vcpu)
        pending = any(port >= 0 and self._events.is_pending(port) for port in ports)
        if not pending and not self.timed_out[vcpu] and not self._events.has_upcall(vcpu):
            return False
        self.polled[vcpu] = []
        self._timers.set_poll(vcpu, None)
        return True
