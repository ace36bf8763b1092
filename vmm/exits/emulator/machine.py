"""What the emulator asks of the machine it works on."""

from __future__ import annotations

from typing import Protocol


class GuestFault(Exception):  # noqa: N818 - it is the processor's word, not an error of ours
    """An exception the guest has earned; control flow inside the emulator, never seen outside.

    `error_code` is None for vectors that push none; `address` is the linear address for #PF.
    """

    def __init__(
        self, vector: int, error_code: int | None = None, address: int | None = None
    ) -> None:
        """Record vector (0..31), error code and faulting linear address."""
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class GeneralRegisters(Protocol):
    """General registers by hardware number 0..15, each a full 64-bit unsigned int."""

    rip: int
    rflags: int

    def __getitem__(self, number: int, /) -> int:
        """Return all 64 bits of a register."""

    def __setitem__(self, number: int, value: int, /) -> None:
        """Set all 64 bits of a register."""


class Machine(Protocol):
    """A vCPU as the emulator sees it.

    Addresses are linear; values are unsigned ints, little-endian in memory; sizes are bytes
    (1, 2, 4, 8, 16). A memory call may cross pages: the machine splits it, atomically as far as
    faults go. It owes canonical, limit and alignment (#AC) checks and raises `GuestFault`.
    """

    @property
    def bits(self) -> int:
        """Size of the current code segment: 16, 32 or 64."""

    @property
    def stack_bits(self) -> int:
        """Size of the stack pointer: 64 in 64-bit mode, else 32 or 16 by SS.B."""

    @property
    def regs(self) -> GeneralRegisters:
        """The general registers, RIP and RFLAGS."""

    def xmm(self, number: int, /) -> int:
        """Return a 128-bit register."""

    def set_xmm(self, number: int, value: int, /) -> None:
        """Set a 128-bit register."""

    def segment_base(self, segment: int, /) -> int:
        """Return the base of ES CS SS DS FS GS (0..5)."""

    def segment_selector(self, segment: int, /) -> int:
        """Return the selector of ES CS SS DS FS GS (0..5) as the guest sees it."""

    def is_canonical(self, linear: int, /) -> bool:
        """Say whether a branch of 64-bit code may go there."""

    def fetch(self, count: int, /) -> bytes:
        """Return up to `count` code bytes at CS:RIP; fewer where the page after is missing."""

    def read(self, linear: int, size: int, /) -> int:
        """Read memory or a device."""

    def write(self, linear: int, size: int, value: int, /) -> None:
        """Write memory or a device."""

    def check_write(self, linear: int, size: int, /) -> None:
        """Fault as `write` would, and change nothing."""

    def port_in(self, port: int, size: int, /) -> int:
        """Read an I/O port."""

    def port_out(self, port: int, size: int, value: int, /) -> None:
        """Write an I/O port."""
