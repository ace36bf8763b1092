"""A virtual CPU that only remembers what a dialect did to it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hwmodel.mem.ram import PAGE
from hwmodel.timing.clock import Clock
from vmm.memory.guest import GuestMemory
from vmm.pv.dialect import Machine, Processor

EPOCH = 1_767_225_600


@dataclass
class FakeProcessor:
    index: int
    clock: Clock
    offset: int = 0
    level: int = 0
    masked: bool = False
    quiet: bool = True
    injecting: bool = False
    runnable_since: int = 0
    deaf: bool = False
    serving: int | None = None
    waiting: bool = False
    event: bool = False
    did: list[object] = field(default_factory=list)
    memory: dict[int, bytes] = field(default_factory=dict)
    settle: Callable[[Processor], None] | None = None

    def tsc_offset(self) -> int:
        return self.offset

    def cpl(self) -> int:
        return self.level

    def rip(self) -> int:
        return 0x1000 + self.index

    def prefer(self, gpa: int) -> None:
        self.did.append(("near", gpa))

    def reschedule(self) -> None:
        self.did.append("reschedule")

    def work(self, operations: int) -> None:
        self.worked = operations

    def load_cr3(self, value: int) -> bool:
        self.did.append(("cr3", value))
        return not value >> 46

    def drop_translation(self, linear: int) -> None:
        self.did.append(("invlpg", linear))

    def flush_translations(self) -> None:
        self.did.append("flush")

    def waited(self) -> int:
        return self.clock.now - self.runnable_since

    def answers_to(self, apic_id: int) -> bool:
        return apic_id == self.index

    def interrupt(self, mode: int, vector: int) -> bool:
        self.did.append((mode, vector))
        return not self.deaf

    def kick(self) -> None:
        self.did.append("kick")

    def yield_to(self, index: int) -> None:
        self.did.append(("yield", index))

    def yield_to_any(self) -> None:
        self.did.append("yield")

    def wait(self, *, timed: bool) -> None:
        self.waiting = True
        self.did.append(("wait", timed))

    def is_waiting(self) -> bool:
        return self.waiting

    def end_wait(self, result: int) -> None:
        self.waiting = False
        self.did.append(("end", result))

    def is_asleep(self) -> bool:
        return self.waiting

    def has_wake_event(self) -> bool:
        return self.event

    def before_apic(self, settle: Callable[[Processor], None]) -> None:
        self.settle = settle

    def end_of_interrupt(self) -> None:
        self.did.append("eoi")

    def in_service(self) -> int | None:
        return self.serving

    def ends_silently(self) -> bool:
        return self.quiet

    def takes_interrupts(self) -> bool:
        return not self.masked

    def load(self, linear: int, size: int) -> bytes | None:
        return self.memory.get(linear, bytes(size))[:size]

    def store(self, linear: int, data: bytes) -> bool:
        self.memory[linear] = data
        return True

    def raise_page_fault(self, address: int) -> None:
        self.did.append(("#PF", address))

    def injects_interrupt(self) -> bool:
        return self.injecting


def machine(cpus: int = 2, pages: int = 16) -> Machine:
    """RAM at 0 and, behind a hole, at 1 MiB."""
    memory = GuestMemory(((0, pages * PAGE), (1 << 20, pages * PAGE)))
    return Machine(memory, Clock(), EPOCH, 2_500_000_000, 25_000_000, cpus)


def processors(of: Machine) -> list[FakeProcessor]:
    return [FakeProcessor(index, of.clock) for index in range(of.cpus)]
