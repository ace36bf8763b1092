"""One PV domain: its hypercalls, its start, its state; a dialect to the rest of the VM."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hwmodel.cpu.xen import Layout, XenEngine
from hwmodel.pcpu import Pcpu
from vmm.memory.pseudo import PseudoPhysical
from vmm.pv.dialect import Hooks, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.xen.abi import BACKEND_DOMID, MASK64, PAGE, Call, Errno, Virq
from vmm.pv.xen.console import PvConsole
from vmm.pv.xen.cpuid import HIDDEN, leaves
from vmm.pv.xen.event_op import EventOp
from vmm.pv.xen.events import Channel, EventChannels, Status
from vmm.pv.xen.grant_map import GrantMaps
from vmm.pv.xen.grants import GrantTable
from vmm.pv.xen.guest import BadPointerError, GuestCpu
from vmm.pv.xen.memory_op import MemoryOp
from vmm.pv.xen.referee import Rule
from vmm.pv.xen.runstate import RunState, RunStates
from vmm.pv.xen.sched_op import After, SchedOp
from vmm.pv.xen.seed import seed
from vmm.pv.xen.shared import Shared
from vmm.pv.xen.small_ops import ConsoleIo, PhysdevOp, not_offered, not_permitted
from vmm.pv.xen.store import Store
from vmm.pv.xen.store_ring import OWN_PATH, StoreRing
from vmm.pv.xen.timers import SystemTime, Timers
from vmm.pv.xen.vcpu_op import VcpuOp
from vmm.pv.xen.version import xen_version

if TYPE_CHECKING:
    from vmm.devices.device import Device

Operation = Callable[[GuestCpu, tuple[int, ...]], int]
STORE_PORT, CONSOLE_PORT = 1, 2


@dataclass(frozen=True, slots=True)
class Outlets:
    """Who hears the domain: its console, its end, and whoever keeps the time of its timers."""

    console: Callable[[bytes], None]
    shut_down: Callable[[int], None]
    reschedule: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What the domain builder decided: frames are machine frames, the rest linear addresses."""

    root: int
    entry: int
    stack: int
    start_info: int
    store: int
    console: int


class XenPv:
    """A domain; `attach_cpus` and `start` complete it."""

    name = "xen-pv"

    def __init__(
        self, machine: Machine, pcpu: Pcpu, memory: PseudoPhysical, layout: Layout, out: Outlets
    ) -> None:
        """Make the domain of `pcpu`; nothing runs yet."""
        self.hides = HIDDEN
        self.events: Device | None = None  # the timers are hung on the board as it is made
        self.numbers = range(0)
        self.tsc_step = 0
        self.hooks = Hooks(scheduled=self._scheduled, descheduled=self._descheduled)
        self._machine: Final = machine
        self._memory: Final = memory
        self._layout: Final = layout
        self._out: Final = out
        self.engine: Final = XenEngine(pcpu.native, memory.frames, machine.cpus)
        self._write_m2p()
        self.cpus: Final[list[GuestCpu]] = []
        self.unknown: dict[int, int] = {}
        """Hypercalls that nobody knows, by number: how often."""
        self._make_parts(machine.cpus)

    def _make_parts(self, cpus: int) -> None:
        engine, layout, clock = self.engine, self._layout, self._machine.clock
        self.shared = Shared(self._memory)
        self.ports = EventChannels(self.shared, engine, layout.shared_info, self._wake)
        self.timers = Timers(
            clock, cpus, self._timer_expired, self._poll_timed_out, self._out.reschedule
        )
        self.time = SystemTime(clock, self.shared, layout.shared_info, self._machine.epoch)
        self.runstates = RunStates(cpus, clock.ns, self._write_linear)
        self.grants = GrantTable(self.shared, engine, layout.grants)
        self.maps = self.grants.own = GrantMaps(engine, self.shared, self.grants)
        self.ports.report = self.grants.report = self._report
        self.store = Store(OWN_PATH)
        self.sched = SchedOp(self.ports, self.timers, self._out.shut_down, cpus)
        self.ports.pollers = self.sched.pollers
        self.vcpu_op = VcpuOp(engine, self.cpus, self.timers, self.time, self.runstates)
        self.memory_op = MemoryOp(engine, self._memory, layout)
        self._operations: Mapping[int, Operation] = {
            Call.MEMORY_OP: self.memory_op, Call.SET_TIMER_OP: self.vcpu_op.set_timer,
            Call.XEN_VERSION: xen_version, Call.CONSOLE_IO: ConsoleIo(self._out.console),
            Call.GRANT_TABLE_OP: self.grants, Call.VCPU_OP: self.vcpu_op,
            Call.SCHED_OP: self.sched, Call.EVENT_CHANNEL_OP: EventOp(self.ports, cpus),
            Call.PHYSDEV_OP: PhysdevOp(engine), Call.PLATFORM_OP: not_permitted,
            Call.SYSCTL: not_permitted, Call.DOMCTL: not_permitted, Call.KEXEC_OP: not_permitted,
            Call.XSM_OP: not_offered, Call.HVM_OP: not_offered, Call.XENPMU_OP: not_offered,
            Call.XENOPROF_OP: not_offered, Call.NMI_OP: not_offered, Call.TMEM_OP: not_offered,
            Call.ARGO_OP: not_offered, Call.HYPFS_OP: not_offered, Call.DM_OP: not_permitted,
        }  # fmt: skip

    def _write_m2p(self) -> None:
        """Tell the pseudo-physical frame of each machine frame."""
        table = array("Q", bytes(8 * self._memory.frames))
        for pfn, mfn in enumerate(self._memory.p2m):
            table[mfn] = pfn
        at = self._layout.m2p * PAGE
        self._memory.ram.view[at : at + 8 * len(table)] = table.tobytes()

    def _report(self, rule: Rule, address: int, value: int) -> None:
        self.engine.note_breach(rule.number, address, value)

    # ---- starting ----

    def attach_cpus(self, cpus: list[GuestCpu]) -> None:
        """Introduce the virtual CPUs."""
        self.cpus.extend(cpus)

    def start(self, start: Start) -> int:
        """Load the first vCPU; 0, or why the builder's page tables were refused."""
        for index, cpu in enumerate(self.cpus):
            self.engine.attach(cpu.vmcs.native, index)
            self.time.write(self.engine.vcpu_info(index))
        self.time.write_wall_clock()
        for port in (STORE_PORT, CONSOLE_PORT):
            channel = Channel(Status.INTERDOMAIN, domain=BACKEND_DOMID)
            assert self.ports.allocate(channel) == port
        self.console = PvConsole(
            self.shared, start.console * PAGE, self._out.console,
            lambda: self.ports.notify(CONSOLE_PORT),
        )  # fmt: skip
        self.store_ring = StoreRing(
            self.store, self.shared, start.store * PAGE, lambda: self.ports.notify(STORE_PORT)
        )
        self.ports.listeners[CONSOLE_PORT] = self.console.kick
        self.ports.listeners[STORE_PORT] = self.store_ring.kick
        self.grants.seed(start.console, start.store)
        seed(self.store, start.store, start.console, self._memory.frames, len(self.cpus))
        native = self.cpus[0].vmcs.native
        return self.engine.start(native, start.root, start.entry, start.stack, start.start_info)

    # ---- hypercalls ----

    def answer(self, index: int) -> After:
        """Carry out the hypercall that waits, and those behind it in its multicall."""
        cpu = self.cpus[index]
        self.sched.after = After.GO_ON
        while True:
            number, arguments = self.engine.call(index)
            result = self._carry_out(cpu, number, arguments)
            left = self.engine.finish(cpu.vmcs.native, result)
            if left == 2:
                return After.AGAIN
            if not left:
                return self.sched.after

    def _carry_out(self, cpu: GuestCpu, number: int, arguments: tuple[int, ...]) -> int:
        operation = self._operations.get(number)
        if operation is None:
            key = min(number, MASK64)
            if len(self.unknown) < 64 or key in self.unknown:
                self.unknown[key] = self.unknown.get(key, 0) + 1
            return -Errno.NOSYS
        try:
            return operation(cpu, arguments)
        except BadPointerError:
            return -Errno.FAULT

    def hypercalls(self) -> dict[str, int]:
        """Return how many there were, by name; those in multicalls count."""
        counts = self.engine.counters()["calls"]
        assert isinstance(counts, list)
        names = {int(call): call.name.lower() for call in Call}
        return {names.get(n, f"number {n}"): count for n, count in enumerate(counts) if count}

    # ---- what happens to it ----

    def may_wake(self, index: int) -> bool:
        """Whether a sleeping vCPU can go on."""
        return self.sched.may_wake(index)

    def _wake(self, index: int) -> None:
        if index < len(self.cpus):
            self.cpus[index].wake()

    def _timer_expired(self, index: int) -> None:
        self.ports.raise_virq(Virq.TIMER, index)

    def _poll_timed_out(self, index: int) -> None:
        self.sched.time_out(index)
        self._wake(index)

    def _write_linear(self, index: int, linear: int, data: bytes) -> None:
        try:
            self.cpus[index].write(linear, data)
        except BadPointerError:
            return

    def slept(self, index: int) -> None:
        """A vCPU sleeps from now on."""
        self.runstates.change(index, RunState.BLOCKED)

    def woke(self, index: int) -> None:
        """It has the processor again."""
        self.runstates.change(index, RunState.RUNNING)
        self.runstates.show(index)

    def _scheduled(self, cpu: Processor) -> None:
        self.woke(cpu.index)

    def _descheduled(self, cpu: Processor) -> None:
        if self.engine.is_up(cpu.index):
            self.runstates.change(cpu.index, RunState.RUNNABLE)

    # ---- a dialect ----

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Xen's CPUID leaves."""
        return leaves(base, self._machine.tsc_hz)

    def msrs(self) -> frozenset[int]:
        """None: a PV guest finds its hypercall page in its image."""
        return frozenset()

    def read_msr(self, _cpu: Processor, _number: int) -> int | None:
        """There is none."""
        return None

    def write_msr(self, _cpu: Processor, _number: int, _value: int) -> bool:
        """There is none."""
        return False

    def hypercall(self, _cpu: Processor, _call: Hypercall) -> int | None:
        """VMCALL is not how a PV guest calls."""
        return None

    def refusal(self, _cpu: Processor) -> int | None:
        """Nothing is refused."""
        return None

    def attach(self, processors: list[Processor]) -> None:
        """See `attach_cpus`."""

    def begin_life(self, life: int) -> None:
        """A domain does not count its lives."""

    def reset(self, index: int) -> None:
        """Power-up is the domain's as a whole."""

    def save(self) -> State:
        """The engine's part, ports, timers, the store."""
        return {
            "version": 1, "engine": self.engine.save(), "events": self.ports.save(),
            "timers": self.timers.save(), "runstates": self.runstates.save(),
            "maps": self.maps.save(), "grants": self.grants.save(), "store": self.store.save(),
            "p2m": self._memory.p2m.tobytes(), "ring": self.store_ring.save(),
            "typed": self.console.typed,
            "polled": [list(ports) for ports in self.sched.polled],
            "timed_out": list(self.sched.timed_out),
            "initialised": sorted(self.vcpu_op.initialised), "owned": self.memory_op.owned,
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        found: Any = state
        self.engine.restore(found["engine"])
        self.ports.restore(found["events"])
        self.timers.restore(found["timers"])
        self.runstates.restore(found["runstates"])
        self.maps.restore(found["maps"])
        self.grants.restore(found["grants"])
        self._memory.p2m[:] = array("Q", found["p2m"])
        self.store.restore(found["store"])
        self.store_ring.restore(found["ring"])
        self.console.typed = found["typed"]
        self.sched.polled = [list(ports) for ports in found["polled"]]
        self.sched.timed_out = list(found["timed_out"])
        self.vcpu_op.initialised = set(found["initialised"])
        self.memory_op.owned = found["owned"]
