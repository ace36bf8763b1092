"""The hypercalls that an HVM guest has and a PV guest has not, or in another form.

public/hvm/{hvm_op,params}.h, public/memory.h, public/vcpu.h.
"""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final

from vmm.pv.xen.abi import PAGE, VERSION, Errno, is_self
from vmm.pv.xen.grants import MAX_FRAMES, STATUS_FRAMES, GrantTable
from vmm.pv.xen.guest import Caller
from vmm.pv.xen.hvm.places import CONSOLE_GFN, GRANTS, INFO_BYTES, SHARED_INFO, STORE_GFN, Places
from vmm.pv.xen.timers import LEAST_PERIOD
from vmm.pv.xen.version import xen_version

if TYPE_CHECKING:
    from vmm.pv.xen.runstate import RunStates
    from vmm.pv.xen.timers import Timers

CALLBACK_IRQ, STORE_PFN, STORE_EVTCHN, CONSOLE_PFN, CONSOLE_EVTCHN = 0, 1, 2, 17, 18
_PARAMS: Final = 40
_PARAM: Final = Struct("<HHIQ")
_UPCALL: Final = Struct("<IB3x")
_PHYSMAP: Final = Struct("<HHIQQ")
_REMOVE: Final = Struct("<H6xQ")
_STATUS_INDEX: Final = 1 << 31  # XENMAPIDX_grant_table_status
_VIA_GSI, _VIA_PIN, _VIA_VECTOR = 0, 1, 2
_FEATURES: Final = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 9
"""writable_page_tables, auto_translated_physmap, hvm_callback_vector, hvm_safe_pvclock."""
_INDEX: Final = Struct("<II")
_INFO: Final = Struct("<QII")
_SINGLE: Final = Struct("<QI4x")
_FUTURE, _SIGN = 1, 1 << 63


def hvm_version(cpu: Caller, arguments: tuple[int, ...]) -> int:
    """HYPERVISOR_xen_version with an HVM guest's features."""
    command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
    if command == 0:
        return VERSION[0] << 16 | VERSION[1]
    if command == 6:
        index, _ = cpu.unpack(_INDEX, at)
        if index > 0:
            return -Errno.INVAL
        cpu.write(at + 4, _FEATURES.to_bytes(4, "little"))
        return 0
    return xen_version(cpu, arguments)


class HvmOp:
    """HYPERVISOR_hvm_op: parameters, and the vector of each vCPU's upcall."""

    def __init__(self, cpus: int, store_port: int, console_port: int) -> None:
        """`vectors` are of vCPUs with an upcall vector of their own, 0: none."""
        self.vectors = [0] * cpus
        self.params = {
            STORE_PFN: STORE_GFN, STORE_EVTCHN: store_port,
            CONSOLE_PFN: CONSOLE_GFN, CONSOLE_EVTCHN: console_port,
        }  # fmt: skip

    @property
    def callback(self) -> int:
        """The vector of upcalls of all vCPUs, 0: none."""
        via = self.params.get(CALLBACK_IRQ, 0)
        return via & 0xFF if via >> 56 == _VIA_VECTOR else 0

    @property
    def pin(self) -> bool:
        """Whether upcalls of the first vCPU are the level of an interrupt line: a GSI or a pin."""
        via = self.params.get(CALLBACK_IRQ, 0)
        return via != 0 and via >> 56 in (_VIA_GSI, _VIA_PIN)

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """set_param, get_param, set_evtchn_upcall_vector."""
        command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
        if command in (0, 1):
            return self._param(cpu, at, sets=command == 0)
        if command == 23:
            vcpu, vector = cpu.unpack(_UPCALL, at)
            if vector < 0x10:
                return -Errno.INVAL
            if vcpu >= len(self.vectors):
                return -Errno.NOENT
            self.vectors[vcpu] = vector
            return 0
        return -Errno.NOSYS

    def _param(self, cpu: Caller, at: int, *, sets: bool) -> int:
        domain, _, index, value = cpu.unpack(_PARAM, at)
        if not is_self(domain):
            return -Errno.SRCH
        if index >= _PARAMS:
            return -Errno.INVAL
        if not sets:
            value = self.params.get(index, 0)
            cpu.write(at, _PARAM.pack(domain, 0, index, value))
            return 0
        if index != CALLBACK_IRQ:
            return -Errno.PERM  # a toolstack's
        self.params[index] = value
        return 0


class HvmMemoryOp:
    """HYPERVISOR_memory_op: where Xen's pages are, and how much memory there is."""

    def __init__(self, places: Places, grants: GrantTable, frames: int) -> None:
        """`frames` of RAM."""
        self._places: Final = places
        self._grants: Final = grants
        self._frames: Final = frames

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out; the balloon finds no frames to take or give."""
        command, at = arguments[0] & 0x3F, arguments[1]
        if command == 7:
            return self._add(cpu, at)
        if command == 15:
            domain, gfn = cpu.unpack(_REMOVE, at)
            if not is_self(domain):
                return -Errno.SRCH
            return 0 if self._places.unmap(gfn) else -Errno.INVAL
        if command in (3, 4):
            domain = int.from_bytes(cpu.read(at, 2), "little")
            return self._frames if is_self(domain) else -Errno.SRCH
        if command == 2:
            return self._frames - 1
        if command in (0, 1, 6):
            cpu.read(at, 32)
            return 0
        return -Errno.NOSYS

    def _add(self, cpu: Caller, at: int) -> int:
        domain, _, space, index, gfn = cpu.unpack(_PHYSMAP, at)
        if not is_self(domain):
            return -Errno.SRCH
        number = self._page(space, index)
        if number is None or gfn >> 34:
            return -Errno.INVAL
        return 0 if self._places.map(number, gfn) else -Errno.NOMEM

    def _page(self, space: int, index: int) -> int | None:
        if space == 0:
            return SHARED_INFO if index == 0 else None
        if space != 1:
            return None
        if index & _STATUS_INDEX:
            status = index ^ _STATUS_INDEX
            return GRANTS + MAX_FRAMES + status if status < STATUS_FRAMES else None
        if index >= MAX_FRAMES:
            return None
        self._grants.frames = max(self._grants.frames, index + 1)
        return GRANTS + index


class HvmVcpuOp:
    """HYPERVISOR_vcpu_op: what is left where processors are started by their local APICs."""

    def __init__(
        self, places: Places, timers: "Timers", runstates: "RunStates",
        move_info: Callable[[int, int], None], time: Callable[[int], bytes], cpus: int,
    ) -> None:  # fmt: skip
        """`move_info` has a vCPU's vcpu_info at another machine address from now on; `time` is its
        struct vcpu_time_info.
        """
        self._places: Final = places
        self._timers: Final = timers
        self._runstates: Final = runstates
        self._move_info: Final = move_info
        self._time: Final = time
        self._cpus: Final = cpus
        self._operations: Final[dict[int, Callable[[Caller, int, int], int]]] = {
            3: lambda _cpu, _number, _at: 1, 4: self._runstate, 5: self._register_runstate,
            6: self._set_periodic, 7: self._stop_periodic, 8: self._set_single,
            9: self._stop_single, 10: self._register_info, 13: self._register_time,
        }  # fmt: skip

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out for vCPU `arguments[1]`."""
        operation, number = self._operations.get(arguments[0] & 0xFFFF_FFFF), arguments[1]
        if number >= self._cpus:
            return -Errno.NOENT
        return -Errno.NOSYS if operation is None else operation(cpu, number, arguments[2])

    def _runstate(self, cpu: Caller, number: int, at: int) -> int:
        cpu.write(at, self._runstates.image(number))
        return 0

    def _register_runstate(self, cpu: Caller, number: int, at: int) -> int:
        self._runstates.register(number, int.from_bytes(cpu.read(at, 8), "little"))
        return 0

    def _set_periodic(self, cpu: Caller, number: int, at: int) -> int:
        period = int.from_bytes(cpu.read(at, 8), "little")
        if not LEAST_PERIOD <= period < _SIGN:
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
        gfn, offset, _ = cpu.unpack(_INFO, at)
        if offset > PAGE - INFO_BYTES or offset % 8:
            return -Errno.INVAL
        page = self._places.hpa(gfn)
        if page is None:
            return -Errno.INVAL
        self._move_info(number, page + offset)
        return 0

    def _register_time(self, cpu: Caller, number: int, at: int) -> int:
        cpu.write(int.from_bytes(cpu.read(at, 8), "little"), self._time(number))
        return 0
