"""The physical CPU that a VM runs on: as the model says, timed as `--timing` says."""

from collections import Counter
from functools import partial
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import CpuModel
from hwmodel.arch.translation import Fidelity
from hwmodel.cpu.pipelines import table_of
from hwmodel.mem.ram import Ram
from hwmodel.pcpu import EngineError, Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.timing.prices import Near, fill
from vmm.boardmap import IOAPIC_BASE, LAPIC_BASE
from vmm.config import Config, Technique, Timing
from vmm.errors import InternalError

IN_KERNEL: Final = Near(
    ports=((0x20, 0x21), (0x40, 0x43), (0x61, 0x61), (0xA0, 0xA1), (0x4D0, 0x4D1)),
    memory=((IOAPIC_BASE, IOAPIC_BASE + 0xFFF), (LAPIC_BASE, LAPIC_BASE + 0xFFFFF)),
)
"""What KVM models in the kernel: PIC, PIT, I/O APIC, local APIC (its api.rst, KVM_CREATE_IRQCHIP,
KVM_CREATE_PIT2)."""
_FIDELITY: Final = {
    Timing.FAST: Fidelity.LARGE,
    Timing.CYCLE: Fidelity.SHARED,
    Timing.DETAILED: Fidelity.DATA,
}


def make_clock(config: Config, model: CpuModel) -> Clock:
    """Make the clock: at `--freq`, or at the rate of the model's TSC."""
    invariant = "invariant_tsc" in model.features
    first = next((hz for ns, hz in config.freq if not ns), model.tsc_hz)
    return Clock(first, tsc_hz=model.tsc_hz if invariant else 0)


class Processors(tuple[Pcpu, ...]):
    """The physical CPUs of one machine, over one memory; a VM that is alone with one has one."""

    __slots__ = ()

    @property
    def instructions(self) -> int:
        """Instructions retired on all."""
        return sum(pcpu.instructions for pcpu in self)

    @property
    def patched(self) -> int:
        """How often instructions ran that had been replaced at translation."""
        return sum(pcpu.counters()["patched"] for pcpu in self)

    def exits_by_name(self) -> dict[str, int]:
        """Return the exits that all made, by the kernel's name of the reason."""
        total: Counter[str] = Counter()
        for pcpu in self:
            total.update(pcpu.exits_by_name())
        return dict(total)

    def interrupt(self) -> None:
        """Make whichever runs come back soon; from a signal handler or a thread."""
        for pcpu in self:
            pcpu.interrupt()

    def close(self) -> None:
        """Free them, in the order in which they depend on each other."""
        for pcpu in reversed(self):
            pcpu.close()


def make_machine(ram: Ram, clock: Clock, model: CpuModel, config: Config) -> Processors:
    """Make all physical CPUs of `config`: an engine each. Raises InternalError."""
    made = Processors(make_pcpu(ram, clock, model, config) for _ in range(config.pcpus))
    for pcpu in made[1:]:
        pcpu.join(made[0])
    return made


def make_pcpu(ram: Ram, clock: Clock, model: CpuModel, config: Config) -> Pcpu:
    """Make it. Raises InternalError when the engine cannot be had."""
    try:
        pcpu = Pcpu.of_model(ram, clock, model)
        pcpu.follow_clock()
        if config.timing is not Timing.FAST:
            by_faults = config.technique is Technique.TRAP
            pcpu.pace.set_costs(table_of(model))
            pcpu.operation_cycles = model.costs.handlers[ExitReason.MSR_WRITE]
            pcpu.set_paging(model, _FIDELITY[config.timing])
            detailed = config.timing is Timing.DETAILED
            pcpu.set_prices(
                partial(fill, model=model, near=IN_KERNEL, by_faults=by_faults, whole=detailed)
            )
            if detailed:
                pcpu.set_detailed()
    except EngineError as error:
        raise InternalError(f"the engine cannot be made: {error}") from None
    return pcpu
