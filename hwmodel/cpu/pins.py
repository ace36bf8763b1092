"""What reaches a physical CPU from outside: interrupts, NMI and INIT at its own pins."""

from typing import Any

from hwmodel.cpu.unicorn import lib


class Pins:
    """The pins of one engine."""

    _native: Any

    @property
    def native(self) -> Any:
        """The engine, for the binding layer."""
        return self._native

    def raise_interrupt(self, vector: int | None) -> None:
        """Let an external interrupt wait at this processor's pin; None takes it back."""
        lib.engine_raise_interrupt(self._native, -1 if vector is None else vector)

    def raise_nmi(self) -> None:
        """Let an NMI wait at this processor's pin."""
        lib.engine_raise_nmi(self._native)

    def raise_init(self) -> None:
        """Let an INIT wait at this processor's pin: a guest exits for it."""
        lib.engine_raise_init(self._native)
