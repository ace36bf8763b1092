"""Accesses of instructions that are emulated, apart from the plain ones that an exit tells whole.

An observer is told of plain accesses by the engine, and listens here for the others. It is an
object of its own so that listening, even afterwards, costs the board's other users nothing.
"""

from typing import Protocol


class _Ports(Protocol):
    def read(self, address: int, size: int) -> int: ...

    def write(self, address: int, size: int, value: int) -> None: ...


class _Board(Protocol):
    @property
    def ports(self) -> _Ports: ...

    def read_memory(self, cpu: int, address: int, size: int) -> int: ...

    def write_memory(self, cpu: int, address: int, size: int, value: int) -> None: ...


class EmulatedAccesses:
    """A board, as the emulator uses it."""

    def __init__(self, board: _Board) -> None:
        """Pass everything on to `board`."""
        self._board = board

    def read(self, cpu: int, address: int, size: int) -> int:
        """MMIO read by processor `cpu`."""
        return self._board.read_memory(cpu, address, size)

    def write(self, cpu: int, address: int, size: int, value: int) -> None:
        """MMIO write by processor `cpu`."""
        self._board.write_memory(cpu, address, size, value)

    def port_in(self, port: int, size: int) -> int:
        """Port read."""
        return self._board.ports.read(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        """Port write."""
        self._board.ports.write(port, size, value)
