"""The `vm` of a test: a VM without an image, in a chosen state, reset in a tenth of a millisecond.

vm.asm("mov cr3, rax")          # to vm.code, a HLT behind it
vm.regs.rax = 0x41000
vm.run()                        # to HLT, a stop or the limit
assert vm.fault is None and vm.exits[-1].name == "HLT"
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.exit import Exit
from vmm.activity import Activity
from vmm.config import Mmu
from vmm.errors import UsageError
from vmm.outcome import Result, StopReason
from vmm.state.reset import ResetPoint
from vmm.testing import layout
from vmm.testing.assembler import assemble
from vmm.testing.environment import Environment, Mode
from vmm.testing.fault import Fault, fault_of, frame_of
from vmm.testing.registers import raw, system_in, system_of
from vmm.vm import VM

DEFAULT_LIMIT: Final = 1_000_000
DEFAULT_MEMORY: Final = "64M"
_NOTHING: Final = b"\xf4"  # an image for a VM that none is booted in: HLT
SHOWN_EXITS: Final = 8
_CONTROLS: Final[dict[Field, type[Word]]] = {
    Field.PIN_BASED_VM_EXEC_CONTROL: PinBased,
    Field.CPU_BASED_VM_EXEC_CONTROL: Primary,
    Field.SECONDARY_VM_EXEC_CONTROL: Secondary,
}


class NeverEndedError(AssertionError):
    """The code was still running at the instruction limit."""


@dataclass(slots=True)
class Loaded:
    """What was assembled last: for the failure's disassembly."""

    at: int
    code: bytes
    bits: int


class Guest(VM):
    """A VM for one test after another. Raises UsageError for options and states that cannot be."""

    def __init__(self, environment: Environment | None = None, **options: Any) -> None:
        """Make the VM in `environment`; `options` are those of `ring1 run`."""
        super().__init__(_NOTHING, **{"memory": DEFAULT_MEMORY} | options)
        self._blank: Final = self.snapshot()
        self._points: dict[Environment, ResetPoint] = {}
        self.limit = DEFAULT_LIMIT
        self.outcome: Result | None = None
        self.loaded: Loaded | None = None
        self._first_exit = 0
        self.options: Final = options
        self.before: dict[str, int] = {}
        """The registers at the first run since the reset; XMM as set_xmm() wrote them."""
        self._state_before = b""
        self.controls: dict[str, int] = {}
        """What control() set since the reset; `intercepted`: intercept()."""
        self.intercepted: list[int] = []
        self.pokes: dict[int, bytes] = {}
        """What Python wrote to memory before that run, by guest-physical address."""
        self._poked: list[tuple[int, int]] = []
        self._xmm_before: dict[str, int] = {}
        self.environment = environment or Environment()
        self.reset(self.environment)
        self.memory.written.append(lambda at, size: self._poked.append((at, size)))

    # ---- the state before a test ----

    def reset(self, environment: Environment | None = None) -> None:
        """Go to the start of `environment` (of the same again without one)."""
        wanted = environment or self.environment
        point = self._points.get(wanted) or self._build_point(wanted)
        point.restore()
        self.environment = wanted
        self.limit, self.loaded, self.outcome = DEFAULT_LIMIT, None, None
        self.before, self.pokes, self._xmm_before = {}, {}, {}
        self.controls, self.intercepted = {}, []
        self._poked.clear()
        self.watchers.exits.clear()
        self._begin_at(point.snapshot.turn)
        self._first_exit = self.pcpu.counters()["exits"]

    def _build_point(self, environment: Environment) -> ResetPoint:
        self.restore(self._blank)
        environment.load(self.memory, self.vcpus[0])
        point = ResetPoint(self.snapshot(), self.keeper, self.vcpus, self.board)
        self._points[environment] = point
        return point

    @property
    def code(self) -> int:
        """Where code goes, linear."""
        return layout.CODE

    @property
    def data(self) -> int:
        """A place for a test's data: 64 KiB, zero, linear."""
        return layout.DATA

    @property
    def bits(self) -> int:
        """The size of code: 16, 32 or 64."""
        return self.environment.mode.bits

    def asm(self, text: str, at: int | None = None, *, end: bool = True) -> bytes:
        """Assemble Intel-syntax lines to linear address `at` (where code starts) and return them.

        Behind them goes what ends a run well: HLT, in ring 3 an INT to a stub (`end`). Raises
        AssemblyError, which shows the line.
        """
        place = layout.CODE if at is None else at
        offset = place - layout.CODE if self.environment.mode.bits == 16 else place
        return self.load(assemble(text, offset, self.bits), place, end=end)

    def load(self, code: bytes, at: int | None = None, *, end: bool = True) -> bytes:
        """Put machine code to linear address `at` and return it."""
        place = layout.CODE if at is None else at
        if at is None or self.loaded is None:
            self.loaded = Loaded(place, code, self.bits)
        self.memory.write(place, code + (self._ending() if end else b""))
        return code

    def _ending(self) -> bytes:
        return bytes([0xCD, layout.END]) if self.environment.ring else _NOTHING

    def control(self, **flags: int) -> None:
        """Set execution controls by their names, as `vm.control(mov_dr_exiting=1)`.

        Raises UsageError for a name that is none.
        """
        vmcs = self.current.vmcs
        self.controls |= flags
        for name, value in flags.items():
            for field, word in _CONTROLS.items():
                if hasattr(word, name):
                    mask = int(word.of(**{name: 1}))
                    vmcs[field] = vmcs[field] & ~mask | (mask if value else 0)
                    break
            else:
                raise UsageError(f"{name!r} is no execution control; see hwmodel.arch.controls")

    def intercept(self, *vectors: int) -> None:
        """Let exceptions of these vectors exit."""
        self.intercepted += vectors
        self.current.vmcs[Field.EXCEPTION_BITMAP] |= sum(1 << vector for vector in vectors)

    # ---- running ----

    def run(self, limit: int | None = None) -> Result:
        """Run to HLT, a stop or the limit in instructions; faults end in a stub's HLT.

        Raises NeverEndedError at the limit.
        """
        most = self.limit if limit is None else limit
        self.outcome = self._run_for(most)
        if self.outcome.reason == StopReason.LIMIT:
            exits = "".join(f"\n  {vmexit}" for vmexit in self.exits[-SHOWN_EXITS:])
            raise NeverEndedError(
                f"the code did not end within {most} instructions: RIP {self.regs.rip:#x}; "
                f"raise the limit, or let it halt; its last exits:{exits or ' none'}"
            )
        return self.outcome

    def step(self, count: int = 1) -> int:
        """Execute `count` instructions; return RIP. Exits of theirs are handled on the way."""
        self.outcome = self._run_for(count)
        rip: int = self.regs.rip
        return rip

    def _note_start(self) -> None:
        self.before = self.regs.as_dict() | self._xmm_before
        self._state_before = raw(self.current)
        self.pokes = {at: self.memory.read(at, size) for at, size in self._poked}
        self._poked.clear()

    def system_before(self) -> dict[str, int]:
        """Return the system registers at the first run that are not as after a reset; resets."""
        before = system_in(self.current, self._state_before) if self._state_before else {}
        self.reset()
        usual = system_of(self.current)
        return {name: value for name, value in before.items() if value != usual[name]}

    def _begin_at(self, turn: tuple[int, int, int]) -> None:
        self.scheduler.restore(turn)
        self._stop, self._interrupted, self._reset_requested = None, None, False
        self._open_exit = None

    def _run_for(self, instructions: int) -> Result:
        """Go on, also behind a HLT or a limit, for so many instructions at the most."""
        if not self.before:
            self._note_start()
        self._begin_at(self.scheduler.save())
        if self.current.activity is Activity.HALTED:
            self.current.start_waiting(Activity.RUNNING)
        self.instruction_limit = self.pcpu.instructions + self.pcpu.deliveries + instructions
        try:
            return super().run()
        finally:
            self.instruction_limit = None

    @property
    def exits(self) -> list[Exit]:
        """The exits since the reset, the newest last; bounded by the engine's memory of them."""
        return self.pcpu.last_exits(self.pcpu.counters()["exits"] - self._first_exit)

    @property
    def technique(self) -> str:
        """How the guest is held, as tests name it: vtx, vtx+shadow, trap."""
        name = str(self.config.technique)
        return name + "+shadow" * (name == "vtx" and self.config.mmu is Mmu.SHADOW)

    @property
    def frame(self) -> Fault | None:
        """What the stub in which the run ended found on its stack; also of a good end by INT."""
        return frame_of(self.current, self.environment, self.memory)

    @property
    def fault(self) -> Fault | None:
        """The exception or interrupt that ended the run, None if code ended by itself."""
        return fault_of(self.current, self.environment, self.memory)

    def xmm(self, number: int) -> int:
        """Return an XMM register, 128 bits."""
        return self.pcpu.xmm(self.current.vmcs, number)

    def set_xmm(self, number: int, value: int) -> None:
        """Write an XMM register."""
        self._xmm_before[f"xmm{number}"] = value
        self.pcpu.set_xmm(self.current.vmcs, number, value)

    def on_every_exit(self, watcher: Callable[[Exit], None]) -> None:
        """Show each exit to `watcher` before its handler runs, until the next reset."""
        self.watchers.exits.append(lambda _vcpu, vmexit: watcher(vmexit))


__all__ = ["DEFAULT_LIMIT", "Environment", "Fault", "Guest", "Mode", "NeverEndedError"]
