"""HYPERVISOR_vcpu_op (public/vcpu.h), and set_timer_op."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from hwmodel.cpu.xen import XenEngine
from vmm.pv.xen.abi import Errno
from vmm.pv.xen.guest import Caller, GuestCpu
from vmm.pv.xen.runstate import RunStates
from vmm.pv.xen.timers import LEAST_PERIOD, SystemTime, Timers

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT_BYTES: Final = 5168
_SINGLE: Final = Struct("<QI4x")
_INFO: Final = Struct("<QII")
_FUTURE: Final = 1  # VCPU_SSHOTTMR_future
_SIGN: Final = 1 << 63


class VcpuOp:
    """The operations by number; `cpus` are all of the domain's."""

    def __init__(
        self, engine: XenEngine, cpus: list[GuestCpu], timers: Timers, time: SystemTime,
        runstates: RunStates,
    ) -> None:  # fmt: skip
        """No vCPU but the first has a context."""
        self._engine: Final = engine
        self._cpus: Final = cpus
        self._timers: Final = timers
        self._time: Final = time
        self._runstates: Final = runstates
        self.initialised: set[int] = {0}
        self._operations: Final[dict[int, Callable[[Caller, int, int], int]]] = {
            0: self._initialise, 1: self._up, 2: self._down, 4: self._runstate,
            5: self._register_runstate, 6: self._set_periodic, 7: self._stop_periodic,
            8: self._set_single, 9: self._stop_single, 10: self._register_info,
            11: self._nmi, 12: self._no_physid, 13: self._register_time,
        }  # fmt: skip

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out for vCPU `arguments[1]`."""
        operation = self._operations.get(arguments[0] & 0xFFFF_FFFF)
        if arguments[1] >= len(self._cpus):
            return -Errno.NOENT
        return -Errno.NOSYS if operation is None else operation(cpu, arguments[1], arguments[2])

    def _initialise(self, cpu: Caller, number: int, at: int) -> int:
        if number in self.initialised:
            return -Errno.EXIST
        context = cpu.read(at, CONTEXT_BYTES)
        result = self._engine.context(self._cpus[number].vmcs.native, context)
        if not result:
            self.initialised.add(number)
        return result

    def _up(self, _cpu: Caller, number: int, _at: int) -> int:
        if number not in self.initialised:
            return -Errno.INVAL
        self._engine.set_up(number, up=True)
        self._cpus[number].unpark()
        return 0

    def _down(self, _cpu: Caller, number: int, _at: int) -> int:
        self._engine.set_up(number, up=False)
        self._cpus[number].park()
        return 0

    def _runstate(self, cpu: Caller, number: int, at: int) -> int:
        cpu.write(at, self._runstates.image(number))
        return 0

    def _register_runstate(self, cpu: Caller, number: int, at: int) -> int:
        (linear,) = cpu.unpack(Struct("<Q"), at)
        self._runstates.register(number, linear)
        return 0

    def _set_periodic(self, cpu: Caller, number: int, at: int) -> int:
        (period,) = cpu.unpack(Struct("<Q"), at)
        if period < LEAST_PERIOD or period >= _SIGN:
            return -Errno.INVAL
        self._timers.set_periodic(number, period)
        return 0

    def _stop_periodic(self, _cpu: Caller, number: int, _at: int) -> int:
        self._timers.set_periodic(number, 0)
        return 0

    def _set_single(self, cpu: Caller, number: int, at: int) -> int:
        if cpu.index != number:
            return -Errno.INVAL
        when, flags = cpu.unpack(_SINGLE, at)
        if flags & _FUTURE and self._timers.is_past(when):
            return -Errno.TIME
        self._timers.set_single(number, min(when, _SIGN))
        return 0

    def _stop_single(self, cpu: Caller, number: int, _at: int) -> int:
        if cpu.index != number:
            return -Errno.INVAL
        self._timers.set_single(number, None)
        return 0

    def _register_info(self, cpu: Caller, number: int, at: int) -> int:
        mfn, offset, _ = cpu.unpack(_INFO, at)
        result = self._engine.set_vcpu_info(number, mfn, offset)
        if not result:
            self._time.write(self._engine.vcpu_info(number))
        return result

    def _nmi(self, _cpu: Caller, _number: int, _at: int) -> int:
        return 0

    def _no_physid(self, _cpu: Caller, _number: int, _at: int) -> int:
        return -Errno.INVAL  # vCPUs are not pinned

    def _register_time(self, cpu: Caller, _number: int, at: int) -> int:
        (linear,) = cpu.unpack(Struct("<Q"), at)
        cpu.write(linear, self._time.image())
        return 0

    def set_timer(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """HYPERVISOR_set_timer_op: 0 stops; what is past comes at once."""
        when = arguments[0]
        self._timers.set_single(cpu.index, None if not when else min(when, _SIGN))
        return 0
