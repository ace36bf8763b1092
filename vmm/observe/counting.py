"""Counting a run for `ring1 stat`: the engine's sums, and what the hypervisor's taps add."""

from typing import Any, Final

from hwmodel.cpu.recording import Event, Note, Sum
from vmm.observe.kvm_counters import kvm_counters
from vmm.observe.perf_stat import PerfStat, SortKey, perf_stat
from vmm.observe.trace.taps import Taps, derive_in
from vmm.vm import VM

SCHEMA: Final = "ring1.stat/1"


class Counting:
    """The counting of one VM, from now to stop(). Changes nothing of its run."""

    def __init__(self, vm: VM) -> None:
        """Begin."""
        self._vm: Final = vm
        self._recorder: Final = vm.pcpu.recorder()
        for vcpu in vm.vcpus:
            self._recorder.name(vcpu.index, vcpu.vmcs.native)
        self._recorder.add_up()
        self.woken = 0
        note, halted = self._recorder.note(), set[int]()

        def told(kind: int, vcpu: int, a: int, b: int, c: int) -> None:
            if kind <= Note.MMIO_WRITE:
                note(kind, vcpu, a, b, c)
            elif kind == Note.HALT:
                halted.add(vcpu)
            elif kind == Note.WAKE and vcpu in halted:
                halted.discard(vcpu)
                self.woken += 1

        self._taps: Final = Taps(vm, told, plain=not derive_in(vm, self._recorder))

    def sums(self) -> list[Sum]:
        """What was added up so far."""
        return list(self._recorder.sums())

    def stat(
        self, event: Event = Event.EXIT, vcpu: int | None = None, key: SortKey = SortKey.SAMPLE
    ) -> PerfStat:
        """Return perf's rows as of now."""
        lost = self._recorder.counters().sums_lost
        frequency = self._vm.clock.frequency
        return perf_stat(self.sums(), frequency, event=event, vcpu=vcpu, key=key, lost=lost)

    def as_dict(self, vcpu: int | None = None) -> dict[str, Any]:
        """Everything, for programs: KVM's counters by KVM's names, and the rows of each event."""
        counters, sums = self._recorder.counters(), self.sums()
        mmu = self._vm.pcpu.mmu_counters()
        ledger = self._vm.ledger
        return {
            "schema": SCHEMA,
            **kvm_counters(ledger, counters, mmu, sums, self.woken),
            "instructions": self._vm.pcpu.instructions,
            "cycles": self._vm.clock.now,
            "ledger": ledger.as_dict(),
            "lost": counters.sums_lost,
            "events": {
                "vmexit": _rows(self.stat(Event.EXIT, vcpu)),
                "mmio": _rows(self.stat(Event.MMIO, vcpu)),
                "ioport": _rows(self.stat(Event.PORT, vcpu)),
            },
        }

    def stop(self) -> None:
        """End it; the sums are gone."""
        self._taps.remove()
        self._recorder.stop()


def _rows(stat: PerfStat) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name, "samples": row.samples, "time_ns": row.total, "min_ns": row.least,
            "max_ns": row.most, "mean_ns": row.mean, "deviation_percent": row.deviation,
        }
        for row in stat.rows
    ]  # fmt: skip
