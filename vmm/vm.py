"""A VM: memory, vCPUs, devices and scheduler put together from a Config, and the doors to them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from hwmodel.arch.cpuid import Cpuid, supported_cr4, supported_efer
from hwmodel.timing.clock import FOREVER
from hwmodel.timing.ledger import Ledger
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import Registers
from vmm import start
from vmm.apicv import NEEDED, ApicHardware
from vmm.config import Config, Technique, Wakeup
from vmm.controls import refuse_lacking, write_msr_bitmap
from vmm.devices.governor import Governor
from vmm.devices.platform import Board, Outputs, build_board
from vmm.errors import UsageError
from vmm.host.input import HostInput, WaitIdle, nothing
from vmm.host.output import Console
from vmm.host.sources import HostSources
from vmm.host.tape import Tape
from vmm.memory.pager import Pager
from vmm.outcome import Result, Stop, StopReason
from vmm.peripherals import Peripherals
from vmm.processor import make_clock, make_machine
from vmm.sched.build import Scheduler, build_scheduler
from vmm.state import ledger
from vmm.state import snapshot as state
from vmm.state.pages import PageKeeper
from vmm.state.snapshot import Snapshot
from vmm.vcpu import Surroundings, Vcpu
from vmm.virtual import VirtualMemory
from vmm.watchers import Decorator, Watchers

if TYPE_CHECKING:
    from vmm.pv.xen.domain import XenPv
    from vmm.virtio.balloon import Balloon

SHOWN_EXITS: Final = 5  # in the message of a stop


def _discard(_data: object) -> None:
    """Nobody listens."""


class VM:
    """A virtual machine; use it in a `with` statement.

    `VM("kernel.elf", memory="64M")` takes the options of `ring1 run` as keywords. Raises
    UsageError for a bad image or option, InternalError when the engine cannot be had.
    """

    def __init__(
        self,
        image: Any = None,
        *,
        config: Config | None = None,
        serial_output: Callable[[bytes], None] = _discard,
        poll_input: Callable[[], bytes] = nothing,
        wait_idle: WaitIdle | None = None,
        tape: Tape | None = None,
        log: Callable[[str], None] = _discard,
        **options: Any,
    ) -> None:
        """Load the image; nothing runs yet."""
        self.config: Final = config or Config.of(image=image, **options)
        self.plan, memory = start.foundations(self.config)
        self.model: Final = start.model_of(self.config.cpu_model, self.config.timing)
        self.clock: Final = make_clock(self.config, self.model)
        self.memory: Final = memory
        self.domain: XenPv | None = None
        self.pager: Final = Pager(self.clock, self.memory)
        self.console: Final = Console(serial_output)
        self.dialects = start.dialects_for(self)
        self.watchers: Final = Watchers(self.dialects.watchers)
        self.sources: Final = HostSources(self.clock, tape)
        self.input: Final = HostInput(
            self.clock, self.sources, poll_input, wait_idle,
            lambda data: (start.terminal_of(self) or self.board).receive(data),
        )  # fmt: skip
        self.unknown: set[tuple[str, int, str]] = set()
        self.instruction_limit = self.config.max_instructions
        self._stop: Stop | None = None
        self.interrupted: str | None = None
        self._woken = self._closed = self._reset_requested = False
        self._open_exit: tuple[Vcpu, Exit] | None = None
        self.peripherals: Final = Peripherals(
            self.config, self.clock, self.sources, log=log, screen=self.console.write
        )
        try:
            self._build()
        except BaseException:
            self.peripherals.close()
            raise

    def _build(self) -> None:
        self.pcpus = make_machine(self.memory.ram, self.clock, self.model, self.config)
        self.pcpu = self.pcpus[0]
        refuse_lacking(self.model, self.pcpu.capabilities, NEEDED if self.config.apicv else ())
        self.memory.attach(self.pcpu)
        write_msr_bitmap(self.memory, self.model.features)
        self.board = self._make_board()
        start.poll_alone(self)
        self.peripherals.plug(self.board, self.memory, self.clock)
        self.domain = start.domain_of(self)
        self.vcpus = self._make_vcpus()
        self.keeper = PageKeeper(self.memory, self.pcpu)
        self.scheduler: Scheduler = build_scheduler(
            self.vcpus, self.board, self.clock, self.config.sched, self.config.pcpus,
            stopped=self.pauses, idle=self._idle, numa=self.config.numa,
        )  # fmt: skip
        self.plan = start.place(self)
        self._power_on = self.snapshot()

    def _make_board(self) -> Board:
        outputs = Outputs(
            serial=self.console.write,
            debug=self.console.write,
            debug_exit=lambda value: self.stop(StopReason.DEBUG_EXIT, value=value),
            poweroff=lambda: self.stop(StopReason.POWEROFF),
            reset=self.reset,
            invalidate=lambda _gpa: self.pcpu.flush_tlb(),
            nmi=lambda cpu: self.vcpus[cpu].request_nmi(),
            init=lambda cpu: self.vcpus[cpu].init_signal(),
            sipi=lambda cpu, vector: self.vcpus[cpu].startup(vector),
            wake_long=lambda cpu, at: (
                cpu < len(self.vcpus) and start.wake_long(self.vcpus[cpu], at)
            ),
            wake=lambda cpu: self.vcpus[cpu].wake(),
            unknown=lambda bus, at, _, w: self._note(bus, at, "write" if w else "read"),
        )
        model = self.model
        board = build_board(
            self.clock, cpus=self.config.cpus, memory=self.config.memory, outputs=outputs,
            x2apic="x2apic" in model.features, physical_bits=model.physical_bits,
            crystal_hz=model.crystal_hz, types_keys=self.config.screen,
            has_mailbox=self.config.wakeup is Wakeup.MAILBOX,
        )  # fmt: skip
        self.governor = Governor(self.clock, self.config.freq)
        self.governor.changed += [
            *(p.follow_clock for p in self.pcpus),
            *self.dialects.rate_changed,
        ]
        board.backstage += [self.pager, self.governor, *self.dialects.events]
        return board

    def _make_vcpus(self) -> list[Vcpu]:
        model = replace(self.model, features=self.model.features - self.dialects.hides)
        around = Surroundings(
            self.pcpus, self.board, self.memory, Cpuid.of(model, self.config.cpus),
            int(supported_cr4(model)), int(supported_efer(model)),
            self.watchers, self.stop, self.is_stopped, self._note, self.dialects, self.pager,
            lambda index: self.scheduler.give_turn(index), lambda: self.scheduler.yield_turn(),
            start.shadows_of(self.memory, self.pcpu), self.config.technique is Technique.TRAP,
            ApicHardware(self.memory, self.pcpu, self.board.lapics) if self.config.apicv else None,
            self.domain,
        )  # fmt: skip
        vcpus = [Vcpu(index, around) for index in range(self.config.cpus)]
        self.dialects.attach(list(vcpus))
        self.pager.arrived += [*(vcpu.page_arrived for vcpu in vcpus), *self.dialects.page_ready]
        return vcpus

    # ---- running ----

    def run(self) -> Result:
        """Run to the end; return how it ended."""
        self._take_up()
        while self._stop is None:
            self.scheduler.run(self.next_look())
            self.between_turns()
        return self._result(self._stop)

    def run_until(self, cycle: int) -> Result | None:
        """Run until the clock reads `cycle`, to the instruction; how it ended if it did before."""
        self._take_up()
        while self._stop is None and self.clock.now < cycle:
            limit = min(self.next_look(), cycle)
            self.scheduler.idle_limit = min(self.scheduler.idle_limit, cycle)
            self.scheduler.run(limit)
            self.between_turns()
            if not self.is_stopped() and self.next_work() is None:
                self.scheduler.sleep_until(limit)
        return self._result(self._stop) if self._stop is not None else None

    def next_work(self) -> int | None:
        """Return the cycle at which the VM has something to do by itself, None: never."""
        if any(vcpu.is_runnable() for vcpu in self.vcpus):
            return self.clock.now
        return self.board.next_event()

    def __iter__(self) -> Iterator[Exit]:
        """Yield each VM-exit before its handler runs; the handler runs on resume."""
        self._take_up()
        while self._stop is None:
            turn = self.scheduler.next_turn(self.next_look())
            if turn is not None:
                yield from self._turn(*turn)
            self.between_turns()

    def _turn(self, vcpu: Vcpu, ends: int) -> Iterator[Exit]:
        event = self.board.next_event()
        vmexit = vcpu.step(ends if event is None else min(ends, event))
        if vmexit.is_stop:
            vcpu.handle(vmexit)
            return
        seen = vmexit.copy()
        self._open_exit = vcpu, seen
        yield seen
        self._finish_exit()

    def _take_up(self) -> None:
        """Go on behind a loop over exits that was left early."""
        if self._open_exit is not None:
            self._finish_exit()
            self.between_turns()

    def _finish_exit(self) -> None:
        """Run the handler of the exit that was yielded last, unless the state is another now."""
        if self._open_exit is None:
            return
        vcpu, vmexit = self._open_exit
        self._open_exit = None
        if not vmexit.handled:
            vcpu.handle(vmexit)

    def next_look(self) -> int:
        """Return the cycle at which to look around at the latest, and set it for idle times."""
        limit = FOREVER
        if self.config.max_cycles is not None:
            limit = min(limit, self.config.max_cycles)
        self.pcpu.pace.limit(self.instruction_limit)
        self.scheduler.idle_limit = min(limit, self.input.idle_limit() or limit)
        return min(limit, self.input.limit() or limit)

    def between_turns(self) -> None:
        """Look around: at who wants the run to end, at limits, at input from the host."""
        self._woken = False
        if self._reset_requested and self._stop is not None and self.config.reboot:
            self._restart()
        if self.interrupted is not None:
            self.stop(StopReason(self.interrupted), f"{self.interrupted} from outside")
        self._check_limits()
        self.input.take()
        if self._stop is None and not self._can_go_on():
            self.stop(StopReason.HALTED)

    def _check_limits(self) -> None:
        if self.config.max_cycles is not None and self.clock.now >= self.config.max_cycles:
            self.stop(StopReason.LIMIT, f"reached --max-cycles {self.config.max_cycles}")
        if self.pcpu.pace.is_used_up():
            self.stop(StopReason.LIMIT, f"reached --max-instructions {self.instruction_limit}")

    def _can_go_on(self) -> bool:
        """Halted for good: nobody runs, and no interrupt is taken or none will ever come."""
        if not any(vcpu.can_wake() for vcpu in self.vcpus):
            return False
        if self.board.next_event() is not None or self.input.may_come():
            return True
        return any(vcpu.is_runnable() for vcpu in self.vcpus)

    def _idle(self, cycle: int | None) -> bool:
        return self.interrupted is None and self.input.idle(cycle)  # True: look again

    @property
    def balloon(self) -> "Balloon":
        """The memory balloon. Raises UsageError if the VM has none."""
        if self.peripherals.outside.balloon is None:
            raise UsageError("this VM has no balloon; make it with balloon='on'")
        return self.peripherals.outside.balloon

    def interrupt(self, reason: str = "interrupted") -> None:
        """End the run soon; from a signal handler or another thread."""
        self.interrupted = reason
        self.pcpus.interrupt()

    hear_lines = start.say_lines

    def wake(self) -> None:
        """Look for host input soon, however long the guest's turn; from any thread."""
        self._woken = True
        self.pcpus.interrupt()

    def stop(self, reason: StopReason, message: str = "", *, value: int = 0) -> None:
        """End the run; the first reason wins."""
        if self._stop is not None:
            return
        vcpu = self.current
        where = f" (RIP {vcpu.regs.rip:#x}, {vcpu.mode()} mode)" if message else ""
        self._stop = Stop.because(
            reason, message + where, value=value, rip=vcpu.regs.rip, mode=vcpu.mode(),
            last_exits=tuple(repr(vmexit) for vmexit in self.pcpu.last_exits(SHOWN_EXITS)),
        )  # fmt: skip

    def is_stopped(self) -> bool:
        """Whether the run is over."""
        return self._stop is not None

    def pauses(self) -> bool:
        """Whether the scheduler is to come back: for the end of the run, or for input."""
        ends = self.is_stopped() or self.pcpu.pace.is_used_up()
        return ends or self.interrupted is not None or self._woken

    def reset(self) -> None:
        """End the run by a reset, or start again if `--no-reboot` is not given."""
        self._reset_requested = True
        self.stop(StopReason.RESET)

    def _restart(self) -> None:
        """A reset: memory, processors and devices as at power-on; the clock goes on."""
        self._reset_requested, self._stop = False, None
        with ledger.kept(self.vcpus), self.peripherals.kept_media():
            state.put(self._power_on, self.keeper, self.vcpus, self.board)
        self.board.reschedule()

    def _note(self, kind: str, number: int, what: str) -> None:
        self.unknown.add((kind, number, what))

    def _result(self, stop: Stop) -> Result:
        ledger.settle(self.vcpus)
        booked = self.ledger
        return Result(
            stop.status, str(stop.reason), stop.message, stop.last_exits,
            self.pcpus.instructions, self.clock.now,
            {name: cost.count for name, cost in booked.exits.items()},
            {name: cost.cycles for name, cost in booked.exits.items()},
            booked.as_dict(), self.digest, self.pcpus.exits_by_name(), self.pcpus.patched,
        )  # fmt: skip

    @property
    def result(self) -> Result | None:
        """How the run ended, if it has."""
        return None if self._stop is None else self._result(self._stop)

    # ---- state and observation ----

    @property
    def exits(self) -> list[Exit]:
        """The exits seen, the newest last; bounded."""
        return self.pcpu.last_exits()

    @property
    def ledger(self) -> Ledger:
        """Where every cycle of the clock went: by heading, by exit reason, by vCPU."""
        return ledger.read(self.vcpus, self.current, self.pcpus)

    @property
    def current(self) -> Vcpu:
        """The vCPU that ran last; `regs` are its registers."""
        return self.scheduler.current

    @property
    def regs(self) -> Registers:  # noqa: D102
        return self.current.regs

    @property
    def virtual(self) -> VirtualMemory:
        """Linear memory of the vCPU that ran last, as `memory` is guest-physical."""
        return VirtualMemory(self.current)

    def on_exit(self, name: str, **conditions: int) -> Decorator:
        """Decorate a function to be called at each exit of that name, before its handler.

        Conditions compare attributes of the exit; `leaf` is CPUID's EAX.
        """
        return self.watchers.when(name, conditions)

    def snapshot(self) -> Snapshot:
        """Write the whole VM down, in memory; pages are shared between snapshots."""
        return state.take(self.keeper, self.vcpus, self.board, self.scheduler.save())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this VM."""
        state.put(snapshot, self.keeper, self.vcpus, self.board)
        self.scheduler.restore(snapshot.turn)
        self._stop, self.interrupted, self._reset_requested = None, None, False
        self._open_exit = None

    def digest(self) -> str:
        """SHA-256 over RAM, registers and device state, in hexadecimal."""
        if self._closed:
            raise UsageError("the VM is closed: take its digest before it is")
        return state.digest(self.memory, self.vcpus, self.board)

    def close(self) -> None:
        """Free the engine and the memory; write out and close the disks."""
        self._closed = True
        self.peripherals.close()
        self.pcpus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
