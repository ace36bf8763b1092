"""A physical CPU: one engine, its modelled TLB and its clock.

`enter(vmcs, until) -> Exit` has the shape of KVM_RUN: load, run, save, and say why it stopped.
"""

from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Self

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import InvEpt, InvVpid
from hwmodel.arch.translation import Fidelity
from hwmodel.cpu.joined import OneOfSeveral
from hwmodel.cpu.media import MediaRegisters
from hwmodel.cpu.pace import Pace
from hwmodel.cpu.pins import Pins
from hwmodel.cpu.portwork import SAID, PortWork
from hwmodel.cpu.unicorn import ffi, lib
from hwmodel.mem.fault import Fault
from hwmodel.mem.native import counts_of, paging_model
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.timing.clock import Clock
from hwmodel.timing.ledger import Account, Heading, read_account
from hwmodel.vmx.capabilities import Capabilities
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.native import native_capabilities
from hwmodel.vmx.state import Vmcs

if TYPE_CHECKING:
    from hwmodel.cpu.recording import Recorder
    from hwmodel.cpu.stops import EngineStops
    from hwmodel.mem.reference import Walk

READ, WRITE, FETCH = 0, 1, 2
_MASK64: Final = (1 << 64) - 1  # an access at the top goes on at zero


class EngineError(Exception):
    """The native engine cannot be made or cannot go on."""


class Pcpu(MediaRegisters, Pins, OneOfSeveral):
    """One physical CPU over `ram`. Cycles go to `clock`, which it alone advances."""

    def __init__(self, ram: Ram, clock: Clock, capabilities: Capabilities | None = None) -> None:
        """Make the engine, with all of VT-x that it implements unless `capabilities` say less.

        Raises EngineError with one line when Unicorn refuses.
        """
        self.ram = ram
        self.clock = clock
        self.is_priced, self.operation_cycles = False, 0  # of one of several in a hypercall
        self._native: Any = ffi.gc(lib.engine_create(ram.pointer, ram.size), lib.engine_destroy)
        if message := ffi.string(lib.engine_message(self._native)).decode():
            raise EngineError(message)
        self.set_capabilities(capabilities or Capabilities.implemented())
        self.pace: Final = Pace(self._native)
        self.ports: Final = PortWork(self._native)
        self._record: Final = ffi.new("struct exit_record *")
        self._exit: Final = Exit(self._record)
        self._entered: Final[dict[int, Vmcs]] = {}
        self._borrowed: Final = deque[Vmcs](maxlen=2)
        """Whose x87 and SSE registers the engine may hold: it writes them back later."""
        self._fault: Final = ffi.new("uint64_t[3]")
        self._walk: Final = ffi.new("struct walk_reference[64]"), ffi.new("struct walk_outcome *")
        self._code: Final = ffi.new("uint8_t[]", PAGE)
        self._code_bytes: Final = ffi.buffer(self._code)
        words = (ram.size // PAGE + 63) // 64
        log = ffi.buffer(lib.engine_dirty_log(self._native), words * 8)
        self.dirty_log = memoryview(log).cast("Q")

    def set_capabilities(self, capabilities: Capabilities) -> None:
        """Make this a processor that allows what `capabilities` say; nobody checks them here."""
        self.capabilities = capabilities
        lib.engine_set_capabilities(self._native, native_capabilities(capabilities))

    @property
    def failed_check(self) -> str | None:
        """The name of the check that the newest entry failed by, None if it succeeded."""
        index = lib.engine_failed_check(self._native)
        return None if index < 0 else ffi.string(lib.entry_check_name(index)).decode()

    def check_always(self, always: bool = True) -> None:
        """Make every check at every entry, not only those whose fields have changed."""
        lib.engine_check_always(self._native, always)

    def skip_check(self, index: int) -> None:
        """Leave out one entry check, to see that a test misses it; -1 for none."""
        lib.engine_skip_check(self._native, index)

    def check_passes(self, vmcs: Vmcs, index: int) -> bool:
        """Make one entry check, by its number in `check_names()`."""
        return bool(lib.entry_check_passes(self._native, vmcs.native, index))

    @classmethod
    def of_model(cls, ram: Ram, clock: Clock, model: CpuModel) -> Self:
        """Make one with a CPU model's address widths and as much of VT-x as it allows.

        Raises ModelError if that is more than is implemented.
        """
        made = cls(ram, clock, Capabilities.of_model(model))
        made.set_paging(model, Fidelity.LARGE)
        lib.engine_set_maker(made._native, model.vendor == "AuthenticAMD")
        return made

    def set_paging(self, model: CpuModel, fidelity: Fidelity) -> None:
        """Translate as the model does, and remember as much of it; forgets all translations."""
        if lib.engine_set_paging(self._native, paging_model(model), fidelity):
            raise EngineError(f"CPU model {model.name}: its TLBs are more than the engine models")

    def set_prices(self, fill: Callable[[Any], None]) -> None:
        """Charge for events (cext/price.h) what `fill` writes: see `hwmodel.timing.prices`."""
        self.is_priced = True
        native = ffi.new("struct event_costs *")
        fill(native)
        if lib.engine_set_prices(self._native, native):
            raise EngineError("there is no memory for the caches of page walks")

    def set_near(self, start: int, end: int, far: int) -> None:
        """Machine memory in [start, end) is this processor's node's.

        A page elsewhere costs `far` cycles more each time that the TLB has forgotten it: what the
        TLB holds is taken to be in the caches too. `set_prices` comes first.
        """
        lib.engine_set_near(self._native, start, end, far)

    def set_detailed(self) -> None:
        """Look at each data access and branch (cext/detail.c). Call it before the first entry."""
        if lib.engine_set_detailed(self._native):
            raise EngineError("Unicorn does not show memory accesses: install unicorn==2.1.4")

    def detail_counters(self) -> dict[str, int | list[int]]:
        """Accesses, misses by level and branches that `--timing detailed` saw."""
        return counts_of(lib.engine_detail_counters(self._native), "struct detail_counters")

    def follow_clock(self) -> None:
        """Let the TSC that the guest reads go as the clock's does, whose frequency has changed."""
        lib.engine_set_tsc(self._native, [(*self.clock.tsc_origin(), *self.clock.tsc_rate())])

    def mmu_counters(self) -> dict[str, int | list[int]]:
        """Return what the memory-management unit counted; lists are by page size or level."""
        return counts_of(lib.engine_mmu_counters(self._native), "struct mmu_counters")

    def close(self) -> None:
        """Free the engine and all it holds; using the pCPU afterwards is an error."""
        self.dirty_log.release()
        ffi.release(self._native)

    def enter(self, vmcs: Vmcs, until: int) -> Exit:
        """Run the guest until it exits or the clock reads `until` cycles, to the instruction."""
        return self.entry_of(vmcs)(until)

    def entry_of(self, vmcs: Vmcs, *, skips: bool = False) -> Callable[[int], Exit]:
        """Return `enter` for this VMCS alone, with every look-up done: for a run loop.

        `skips`: move RIP past the instruction that exited, then enter.
        """
        self._entered[id(vmcs)] = vmcs
        function = lib.engine_skip_and_enter if skips else lib.engine_enter
        native = partial(function, self._native, vmcs.native)
        record, vmexit, clock, pass_on = self._record, self._exit, self.clock, self.ports.pass_on

        def enter(until: int) -> Exit:
            code = native(until, record)
            if code >= SAID:
                pass_on()
            vmexit.reason = code & 0xFFFF
            clock.now = record.cycles
            return vmexit

        return enter

    def exits_by_name(self) -> dict[str, int]:
        """Return how many exits the processor made, by the kernel's name of its reason."""
        counts = enumerate(ffi.unpack(lib.engine_exits_by_reason(self._native), lib.REASONS))
        return {ExitReason(number).name: count for number, count in counts if count}

    def exit_counts(self) -> memoryview:
        """Return a live view of the counts of exits, by basic reason."""
        counts = lib.engine_exits_by_reason(self._native)
        return memoryview(ffi.buffer(counts, lib.REASONS * 8)).cast("Q").toreadonly()

    def last_exits(self, most: int = lib.HISTORY) -> list[Exit]:
        """Return the newest exits, oldest first; the engine remembers `lib.HISTORY` of them."""
        newest = lib.engine_counters(self._native).exits
        history = lib.engine_history(self._native)
        first = max(1, newest - min(most, lib.HISTORY) + 1)
        return [Exit(history + n % lib.HISTORY).copy() for n in range(first, newest + 1)]

    def interrupt(self) -> None:
        """Make `enter` come back soon, with INTERRUPTED; from a signal handler or a thread."""
        lib.engine_interrupt(self._native)

    @property
    def message(self) -> str:
        """What the engine says about an INTERNAL stop."""
        return ffi.string(lib.engine_message(self._native)).decode()  # type: ignore[no-any-return]

    @property
    def instructions(self) -> int:
        """Instructions retired so far."""
        return lib.engine_instructions(self._native)  # type: ignore[no-any-return]

    @property
    def deliveries(self) -> int:
        """Events delivered through guests' IDTs so far; each took a cycle."""
        return lib.engine_counters(self._native).delivered  # type: ignore[no-any-return]

    @cached_property
    def stops(self) -> "EngineStops":
        """Where the engine stops for a debugger."""
        from hwmodel.cpu.stops import EngineStops  # no start waits for what it may not need

        return EngineStops(self._native)

    def recorder(self) -> "Recorder":
        """Return what writes entries and exits down, once it is told to."""
        from hwmodel.cpu.recording import Recorder

        return Recorder(self._native)

    def idle(self, cycles: int) -> None:
        """Let time pass in which nobody can run."""
        self.pass_time(Heading.IDLE, cycles)

    def pass_time(self, heading: Heading, cycles: int) -> None:
        """Let time pass under a heading, on nobody's account."""
        null, index = ffi.NULL, heading.number
        self.clock.now = lib.engine_book(self._native, null, index, cycles, lib.REASONS)

    def book(
        self, vmcs: Vmcs, heading: Heading, cycles: int, reason: int = lib.REASONS
    ) -> None:  # fmt: skip
        """Let time pass for `vmcs` under a heading, as part of an exit if `reason` is given."""
        index = heading.number
        self.clock.now = lib.engine_book(self._native, vmcs.native, index, cycles, reason)

    def settle(self, vmcs: Vmcs) -> None:
        """Book now what software completed for `vmcs`, which its next entry would do."""
        self.clock.now = lib.engine_settle(self._native, vmcs.native)

    def account(self) -> Account:
        """Return the ledger as it is booked; guest time up to the last exit."""
        return read_account(lib.engine_ledger(self._native))

    def set_clock(self, instructions: int, cycles: int, ledger: bytes) -> None:
        """Put both counts where a snapshot had them, and the ledger that `save_ledger` gave."""
        ffi.memmove(lib.engine_ledger(self._native), ledger, len(ledger))
        lib.engine_set_clock(self._native, instructions, cycles)
        self.clock.now = cycles

    def save_ledger(self) -> bytes:
        """Return the ledger as bytes."""
        return bytes(ffi.buffer(lib.engine_ledger(self._native)))

    def host_wrote(self, hpa: int, size: int) -> None:
        """Say that software wrote machine memory: code translated from it is dropped."""
        lib.engine_host_wrote(self._native, hpa, size)

    def harvest_dirty(self) -> None:
        """Call after clearing bits of `dirty_log`: later writes are logged afresh."""
        lib.engine_harvest_dirty(self._native)

    def revert(self, mirror: Ram, size: int) -> int:
        """Make what was written of the first `size` bytes what `mirror` holds; clears the log.

        Returns how many pages were dirty.
        """
        return lib.engine_revert(  # type: ignore[no-any-return]
            self._native, mirror.pointer, size // PAGE
        )

    def flush_tlb(self) -> None:
        """Drop every translation."""
        lib.engine_flush_tlb(self._native)

    def invvpid(self, kind: InvVpid, vpid: int, linear: int = 0) -> None:
        """Invalidate linear and combined mappings of a VPID, as INVVPID does."""
        lib.engine_invvpid(self._native, kind, vpid, linear & _MASK64)

    def invept(self, kind: InvEpt, eptp: int = 0) -> None:
        """Invalidate guest-physical and combined mappings, as INVEPT does."""
        lib.engine_invept(self._native, kind, eptp)

    def invalidate_page(self, linear: int) -> None:
        """Drop the translations of one linear page that the VPID that ran last has."""
        lib.engine_invalidate_page(self._native, linear & _MASK64)

    def sync(self, vmcs: Vmcs) -> None:
        """Bring the x87 and SSE state of `vmcs` up to date, if the engine holds it."""
        lib.engine_sync(self._native, vmcs.native)

    def forget(self, vmcs: Vmcs) -> None:
        """Reload `vmcs` in full at its next entry: its state was changed from outside."""
        lib.engine_forget_vcpu(self._native, vmcs.native)

    def counters(self) -> dict[str, int]:
        """Return the engine's counters by name."""
        native = lib.engine_counters(self._native)
        names = [name for name, _ in ffi.typeof("struct engine_counters").fields]
        return {name: getattr(native, name) for name in names}

    def read(self, vmcs: Vmcs, linear: int, size: int, *, user: bool = False) -> bytes | Fault:
        """Read guest memory as an instruction would, with its faults and accessed bits."""
        buffer = ffi.new("uint8_t[]", size)
        if fault := self._access(vmcs, linear, buffer, size, READ, user):
            return fault
        return bytes(buffer)

    def fetch(self, vmcs: Vmcs, linear: int, size: int, *, user: bool = False) -> bytes | Fault:
        """Read guest memory as an instruction fetch would; at most a page."""
        code = lib.vcpu_access(
            self._native, self._borrow(vmcs), linear & _MASK64, self._code, size, FETCH, user,
            self._fault,
        )  # fmt: skip
        fault = self._fault_of(code)
        return self._code_bytes[:size] if fault is None else fault

    def write(self, vmcs: Vmcs, linear: int, data: bytes, *, user: bool = False) -> Fault | None:
        """Write guest memory as an instruction would."""
        buffer = ffi.new("uint8_t[]", bytes(data))
        return self._access(vmcs, linear, buffer, len(data), WRITE, user)

    def _access(
        self, vmcs: Vmcs, linear: int, buffer: Any, size: int, access: int, user: bool
    ) -> Fault | None:
        code = lib.vcpu_access(
            self._native, self._borrow(vmcs), linear & _MASK64, buffer, size, access, user,
            self._fault,
        )  # fmt: skip
        return self._fault_of(code)

    def translate(
        self, vmcs: Vmcs, linear: int, access: int = READ, *, user: bool = False
    ) -> int | Fault:
        """Return the guest-physical address, without any side effect."""
        gpa = ffi.new("uint64_t *")
        code = lib.vcpu_translate(
            self._native, self._borrow(vmcs), linear & _MASK64, access, user, gpa, self._fault
        )
        return self._fault_of(code) or int(gpa[0])

    def explain_walk(
        self, vmcs: Vmcs, linear: int, access: int = READ, *, user: bool = False,
        effects: bool = False,
    ) -> "Walk":  # fmt: skip
        """Return every reference of a page walk, and its end; nothing changes without `effects`.

        With `effects` it is the real walk: caches serve it and are filled, flags are set.
        """
        from hwmodel.mem.recorded import walk_of

        cells, outcome = self._walk
        lib.vcpu_explain_walk(
            self._native, self._borrow(vmcs), linear & _MASK64, access, user, effects, cells,
            len(cells), outcome,
        )  # fmt: skip
        return walk_of(cells, outcome)

    def explain_gpa(self, vmcs: Vmcs, gpa: int, access: int = READ) -> "Walk":
        """Return every EPT reference that a guest-physical address takes; nothing changes."""
        from hwmodel.mem.recorded import walk_of

        cells, outcome = self._walk
        lib.vcpu_explain_gpa(
            self._native, vmcs.native, gpa & _MASK64, access, cells, len(cells), outcome
        )
        return walk_of(cells, outcome)

    def repeat_walk(self, vmcs: Vmcs, linear: int, rounds: int, how: int) -> int:
        """Translate an address again and again, for a bench; return the sum of the answers.

        `how`: 0 with every reference from memory, 1 from hot caches of walks, 2 from the TLB.
        """
        return lib.vcpu_repeat_walk(  # type: ignore[no-any-return]
            self._native, self._borrow(vmcs), linear, rounds, how
        )

    def _borrow(self, vmcs: Vmcs) -> Any:
        """Return the native VMCS for a call that loads it; it must not go before the next one."""
        self._borrowed.append(vmcs)
        return vmcs.native

    def _fault_of(self, code: int) -> Fault | None:
        first, second, third = self._fault
        if code == 1:
            return Fault(int(first), int(second), int(third))
        return Fault(None, gpa=int(first), address=int(second)) if code else None
