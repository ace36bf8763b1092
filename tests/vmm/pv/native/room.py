"""The native dialect with virtual CPUs that only remember what was done to them."""

from tests.vmm.pv.processors import FakeProcessor, machine, processors
from vmm.pv.dialect import Hypercall, Machine
from vmm.pv.native.abi import TAG, Call, Feature
from vmm.pv.native.native import Native
from vmm.pv.native.offer import Offer
from vmm.pv.native.part import Part

ALL = frozenset(Feature)


class Everything(Part):
    """A part that serves every feature and does nothing: for tests of the contract alone."""

    name = "everything"
    features = ALL


class Room:
    """One VM's dialect; `call(Call.X, ...)` calls as ring 0 of processor `cpu` would."""

    def __init__(
        self, of: Machine | None = None, parts: tuple[type[Part], ...] | None = None
    ) -> None:
        self.machine = of or machine()
        self.cpus = processors(self.machine)
        self.native = Native(self.machine, Offer(), *([] if parts is None else [parts]))
        self.native.attach(list(self.cpus))

    def call(self, call: Call, *arguments: int, cpu: int = 0) -> int:
        return self.raw(TAG + call, *arguments, cpu=cpu)

    def raw(self, number: int, *arguments: int, cpu: int = 0) -> int:
        a = (*arguments, *[0] * 6)[:6]
        call = Hypercall(number, (a[0], a[1], a[2], a[3], a[4], a[5]), wide=True)
        result = self.native.hypercall(self.cpus[cpu], call)
        assert result is not None
        return result

    def use(self, *features: Feature) -> None:
        for feature in features:
            assert self.call(Call.CONTRACT_ACCEPT, feature, 1) == 0
        assert self.call(Call.CONTRACT_ACTIVATE, sum(1 << f for f in features)) == 0

    def memory(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.machine.memory.read(gpa, size), "little")

    def poke(self, gpa: int, size: int, value: int) -> None:
        self.machine.memory.write(gpa, value.to_bytes(size, "little"))

    def rules(self) -> list[str]:
        return [breach.rule.name for breach in self.native.referee.breaches]

    def look(self, cpu: int = 0) -> list[str]:
        self.native.referee.look(self.cpus[cpu])
        return self.rules()


__all__ = ["ALL", "Everything", "FakeProcessor", "Room"]
