"""`--dialect xen`: a guest under VT-x that finds Xen by CPUID, and uses its events, grants, rings.

It differs from a PV guest in how it calls (VMCALL in a page that an MSR writes), how an event
reaches it (a vector of its local APIC's), and in that frames are its own guest-physical ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from hwmodel.mem.ram import PAGE
from vmm.pv.dialect import Hooks, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.xen.abi import BACKEND_DOMID, HOLE_END, HOLE_START, OWN_DOMID, Call, Errno, Virq
from vmm.pv.xen.console import PvConsole
from vmm.pv.xen.cpuid import HYPERCALL_MSR
from vmm.pv.xen.cpuid import leaves as xen_leaves
from vmm.pv.xen.event_op import EventOp
from vmm.pv.xen.events import INFO_MASK, Channel, EventChannels, Status
from vmm.pv.xen.grants import GrantTable
from vmm.pv.xen.guest import BadPointerError, Caller
from vmm.pv.xen.hvm.calls import HvmMemoryOp, HvmOp, HvmVcpuOp, hvm_version
from vmm.pv.xen.hvm.places import (
    CONSOLE,
    CONSOLE_GFN,
    GRANTS,
    INFO_BYTES,
    SHARED_INFO,
    STORE,
    STORE_GFN,
    Places,
)
from vmm.pv.xen.referee import Notebook
from vmm.pv.xen.runstate import RunState, RunStates
from vmm.pv.xen.seed import seed
from vmm.pv.xen.shared import Shared
from vmm.pv.xen.small_ops import ConsoleIo, not_offered, not_permitted
from vmm.pv.xen.store import Store
from vmm.pv.xen.store_ring import OWN_PATH, StoreRing
from vmm.pv.xen.timers import SystemTime, Timers

if TYPE_CHECKING:
    from vmm.devices.device import Device

STORE_PORT, CONSOLE_PORT = 1, 2
STUB, STUBS = 32, 64
_INFO_TIME: Final = 32
_FIXED: Final = 0  # delivery mode
_UPCALL_VECTOR, _DOMID = 1 << 6, 1 << 4  # XEN_HVM_CPUID_*
_MOST: Final = 256 * PAGE
_POLL: Final = Struct("<QI4xQ")
Operation = Callable[[Caller, tuple[int, ...]], int]


def hypercall_page() -> bytes:
    """Return the page of stubs: mov eax, number; vmcall; ret (xen/arch/x86/hvm/vmx/vmx.c)."""
    page = bytearray(b"\xcc" * PAGE)
    for number in range(STUBS):
        code = b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x01\xc1\xc3"
        page[number * STUB : number * STUB + len(code)] = code
    return bytes(page)


@dataclass(frozen=True, slots=True)
class HvmCpu:
    """The virtual CPU that makes a hypercall, with its memory by linear address."""

    processor: Processor

    @property
    def index(self) -> int:
        """Its number."""
        return self.processor.index

    def read(self, linear: int, size: int) -> bytes:
        """Return guest memory. Raises BadPointerError."""
        data = self.processor.load(linear, size) if size <= _MOST else None
        if data is None:
            raise BadPointerError
        return data

    def write(self, linear: int, data: bytes) -> None:
        """Write guest memory. Raises BadPointerError."""
        if len(data) > _MOST or not self.processor.store(linear, data):
            raise BadPointerError

    def unpack(self, layout: Struct, linear: int) -> tuple[Any, ...]:
        """Read a structure."""
        return layout.unpack(self.read(linear, layout.size))


class XenHvm:
    """Xen under VT-x, for one VM."""

    name = "xen"
    tsc_step = 0
    numbers = range(STUBS)
    hides: frozenset[str] = frozenset()

    def __init__(self, machine: Machine) -> None:
        """Lay out Xen's pages; the guest maps them."""
        self._machine: Final = machine
        clock, cpus = machine.clock, machine.cpus
        self.places: Final = Places(machine.memory, cpus)
        self.shared: Final = Shared(machine.memory)
        info, grants = (self.places.page(n) // PAGE for n in (SHARED_INFO, GRANTS))
        self.ports: Final = EventChannels(self.shared, self.places, info, self._tell)
        self.grants: Final = GrantTable(self.shared, self.places, grants)
        self.book: Final = Notebook(self._place)
        self.grants.report = self.book.report
        self.store: Final = Store(OWN_PATH)
        self.timers: Final = Timers(clock, cpus, self._expired, lambda _vcpu: None, self._resched)
        self.events: Device | None = self.timers
        self.time: Final = SystemTime(clock, self.shared, info, machine.epoch)
        self.runstates: Final = RunStates(cpus, clock.ns, self._write_linear)
        self.params: Final = HvmOp(cpus, STORE_PORT, CONSOLE_PORT)
        self._cpus: list[Processor] = []
        self.pin: Callable[[bool], None] = lambda _level: None
        """The interrupt pin of the platform device, where there is one."""
        self._pin_is_up = False
        frames = machine.memory.size // PAGE
        vcpu_op = HvmVcpuOp(
            self.places, self.timers, self.runstates, self._move_info, self._time_of, cpus
        )
        self._operations: Final[Mapping[int, Operation]] = {
            Call.XEN_VERSION: hvm_version, Call.HVM_OP: self.params,
            Call.MEMORY_OP: HvmMemoryOp(self.places, self.grants, frames),
            Call.GRANT_TABLE_OP: self.grants, Call.VCPU_OP: vcpu_op, Call.SCHED_OP: self._sched,
            Call.EVENT_CHANNEL_OP: EventOp(self.ports, cpus),
            Call.CONSOLE_IO: ConsoleIo(self._say), Call.SET_TIMER_OP: self._set_timer,
            Call.PHYSDEV_OP: not_offered, Call.SYSCTL: not_permitted,
            Call.DOMCTL: not_permitted, Call.PLATFORM_OP: not_permitted,
        }  # fmt: skip
        self.hooks = Hooks(
            entering=self._entering, scheduled=self._scheduled, descheduled=self._descheduled,
            tsc_changed=self._show_time, rate_changed=self._show_times,
        )  # fmt: skip
        self._begin(frames)

    def _begin(self, frames: int) -> None:
        """What a toolstack does before the guest starts."""
        for port in (STORE_PORT, CONSOLE_PORT):
            self.ports.allocate(Channel(Status.INTERDOMAIN, domain=BACKEND_DOMID))
            assert port in self.ports.channels
        page = self.places.page
        self.console = PvConsole(
            self.shared, page(CONSOLE), self._say, lambda: self.ports.notify(CONSOLE_PORT)
        )
        self.store_ring = StoreRing(
            self.store, self.shared, page(STORE), lambda: self.ports.notify(STORE_PORT)
        )
        self.ports.listeners[CONSOLE_PORT] = self.console.kick
        self.ports.listeners[STORE_PORT] = self.store_ring.kick
        self.places.map(STORE, STORE_GFN)
        self.places.map(CONSOLE, CONSOLE_GFN)
        self.grants.seed(CONSOLE_GFN, STORE_GFN)
        seed(self.store, STORE_GFN, CONSOLE_GFN, frames, self._machine.cpus)
        self.time.write_wall_clock()

    def _say(self, data: bytes) -> None:
        if self._machine.console is not None:
            self._machine.console.write(data)

    def _place(self) -> tuple[int, int]:
        return self._cpus[0].rip() if self._cpus else 0, self._machine.clock.now

    def _resched(self) -> None:
        if self._cpus:
            self._cpus[0].reschedule()

    # ---- discovery ----

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Xen's leaves, with an HVM guest's features in the fifth."""
        found = dict(xen_leaves(base, self._machine.tsc_hz))
        found[base + 2] = Leaf(1, HYPERCALL_MSR)
        found[base + 4] = Leaf(_UPCALL_VECTOR | _DOMID, 0, OWN_DOMID)
        return found

    def msrs(self) -> frozenset[int]:
        """The one that writes the page of stubs."""
        return frozenset({HYPERCALL_MSR})

    def read_msr(self, _cpu: Processor, _number: int) -> int | None:
        """It reads zero."""
        return 0

    def write_msr(self, cpu: Processor, _number: int, value: int) -> bool:
        """Bits 11:0 are the page's number, of which there is one; the rest its address."""
        at = self._machine.memory.hpa(value & -PAGE, PAGE)
        if value & PAGE - 1 or at is None or cpu.cpl():
            return False
        self.shared.store(at, hypercall_page())
        return True

    # ---- hypercalls ----

    def refusal(self, cpu: Processor) -> int | None:
        """Only ring 0 may call."""
        return None if cpu.cpl() == 0 else -Errno.PERM

    def hypercall(self, cpu: Processor, call: Hypercall) -> int | None:
        """Carry one out; registers are those of the ABI of 64-bit guests."""
        operation = self._operations.get(call.number)
        if operation is None or not call.wide:
            return -Errno.NOSYS
        _, _, rdx, rsi, rdi, r8 = call.arguments
        try:
            return operation(HvmCpu(cpu), (rdi, rsi, rdx, call.others[1], r8, call.others[0]))
        except BadPointerError:
            return -Errno.FAULT

    def _set_timer(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        when = arguments[0]
        self.timers.set_single(cpu.index, min(when, 1 << 63) if when else None)
        return 0

    def _sched(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Yield, block, poll: all give the turn away and may be over at once; shutdown."""
        command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
        if command in (0, 1, 3):
            if command == 3:
                ports, count, _ = cpu.unpack(_POLL, at)
                if count > 128:
                    return -Errno.INVAL
                cpu.read(ports, 4 * count)
            self._cpus[cpu.index].yield_to_any()
            return 0
        if command == 2:
            reason = int.from_bytes(cpu.read(at, 4), "little")
            if self._machine.shut_down is not None:
                self._machine.shut_down(reason)
            return 0
        return -Errno.NOSYS

    # ---- events ----

    def _tell(self, vcpu: int) -> None:
        """Something is pending for a vCPU: its local APIC gets the vector."""
        if vcpu >= len(self._cpus) or not self.shared.read(self.places.vcpu_info(vcpu), 1):
            return
        if vcpu == 0 and self.params.pin and not self.params.vectors[0]:
            self._raise_pin()
        elif vector := self.params.vectors[vcpu] or self.params.callback:
            self._cpus[vcpu].interrupt(_FIXED, vector)
            self._cpus[vcpu].reschedule()

    def _raise_pin(self) -> None:
        """The pin is up for as long as the pending byte is set."""
        self._pin_is_up = True
        self.pin(True)
        self._cpus[0].reschedule()

    def _settle_pin(self, _cpu: Processor) -> None:
        """Has the first vCPU taken its upcall? Asked before its local APIC ends an interrupt."""
        if self._pin_is_up and not self.shared.read(self.places.vcpu_info(0), 1):
            self._pin_is_up = False
            self.pin(False)

    def _entering(self, cpu: Processor) -> None:
        """A vector set by a parameter is not the local APIC's: nobody ends it there."""
        vector = self.params.callback
        if not vector or self.params.vectors[cpu.index] or not cpu.injects_interrupt():
            return
        if cpu.in_service() == vector:
            cpu.end_of_interrupt()

    def _expired(self, vcpu: int) -> None:
        self.ports.raise_virq(Virq.TIMER, vcpu)

    # ---- time ----

    def _show_time(self, cpu: Processor) -> None:
        at = self.places.vcpu_info(cpu.index) + _INFO_TIME
        self.time.update(at, cpu.tsc_offset())

    def _time_of(self, vcpu: int) -> bytes:
        return self.time.image(self._cpus[vcpu].tsc_offset())

    def _show_times(self) -> None:
        for cpu in self._cpus:
            self._show_time(cpu)

    def _move_info(self, vcpu: int, at: int) -> None:
        """Take the struct vcpu_info along; an event that waits is told of again."""
        old = self.places.vcpu_info(vcpu)
        self.shared.store(at, self.shared.load(old, INFO_BYTES))
        self.shared.write(at + INFO_MASK, 1, 0)
        self.places.infos[vcpu] = at
        self._show_time(self._cpus[vcpu])
        self._tell(vcpu)

    def _scheduled(self, cpu: Processor) -> None:
        self.runstates.change(cpu.index, RunState.RUNNING)
        self.runstates.show(cpu.index)

    def _descheduled(self, cpu: Processor) -> None:
        asleep = cpu.is_asleep()
        self.runstates.change(cpu.index, RunState.BLOCKED if asleep else RunState.RUNNABLE)

    def _write_linear(self, vcpu: int, linear: int, data: bytes) -> None:
        if not HOLE_START <= linear < HOLE_END:
            self._cpus[vcpu].store(linear, data)

    # ---- a dialect ----

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""
        self._cpus = processors
        processors[0].before_apic(self._settle_pin)
        self._show_times()

    def begin_life(self, life: int) -> None:
        """A domain does not count its lives."""

    def reset(self, index: int) -> None:
        """INIT of one processor: what others registered for it before it starts stays."""

    def save(self) -> State:
        """Ports, timers, the store, Xen's pages and where they are."""
        return {
            "version": 1, "events": self.ports.save(), "runstates": self.runstates.save(),
            "grants": self.grants.save(), "infos": list(self.places.infos),
            "vectors": list(self.params.vectors), "params": sorted(self.params.params.items()),
            "mapped": sorted(self.places.mapped.items()), "pages": self.places.contents(),
            "store": self.store.save(), "ring": self.store_ring.save(), "typed": self.console.typed,
            "pin": self._pin_is_up,
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        found: Any = state
        self.ports.restore(found["events"])
        self.runstates.restore(found["runstates"])
        self.grants.restore(found["grants"])
        self.places.infos = list(found["infos"])
        self.params.vectors = list(found["vectors"])
        self.params.params = dict(found["params"])
        self.places.remap(dict(found["mapped"]))
        self.places.fill(found["pages"])
        self.store.restore(found["store"])
        self.store_ring.restore(found["ring"])
        self.console.typed = found["typed"]
        self._pin_is_up = found["pin"]
