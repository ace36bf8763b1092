"""An MSR of which every virtual CPU has its own, and which holds what was written."""

from typing import Final

from vmm.pv.dialect import Processor, State


class Registers:
    """One MSR of each virtual CPU; features that do more with it build on this."""

    def __init__(self, cpus: int, power_on: int = 0, reserved: int = 0) -> None:
        """Give the value at power-on and the bits whose setting is #GP."""
        self._power_on: Final = power_on
        self._reserved: Final = reserved
        self.values = [power_on] * cpus

    def attach(self, processors: list[Processor]) -> None:
        """Nobody need be known."""

    def read(self, cpu: Processor, _number: int) -> int | None:
        """Return what was written."""
        return self.values[cpu.index]

    def write(self, cpu: Processor, _number: int, value: int) -> bool:
        """Keep it."""
        if value & self._reserved:
            return False
        self.values[cpu.index] = value
        return True

    def reset(self, index: int) -> None:
        """Power-up or INIT."""
        self.values[index] = self._power_on

    def save(self) -> State:
        """The values."""
        return {"values": list(self.values)}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        values = state["values"]
        assert isinstance(values, list)
        self.values[:] = values
