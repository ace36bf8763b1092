"""A 16550A serial port (National Semiconductor PC16550D data sheet), as wired on a PC.

Offsets: 0 RBR/THR (DLL), 1 IER (DLM), 2 IIR/FCR, 3 LCR, 4 MCR, 5 LSR, 6 MSR, 7 SCR.
A character written appears at once and the transmitter is empty again at once: the THR-empty
interrupt is raised anew by each character. Host input waits in a queue of any length and moves into
the receiver as the guest makes room, so only loopback can overrun. The character timeout runs on
the clock, at the baud rate. OUT2 gates the interrupt line, as on every PC; loopback forces the OUT2
pin off.
"""

from collections.abc import Callable
from enum import IntEnum

from vmm.devices.device import Clock, IrqLine, LineOnly, State
from vmm.devices.saved import restore_fields, save_fields

BAUD_BASE = 115_200
"""Baud rate of divisor 1 (1.8432 MHz crystal / 16)."""
FIFO_DEPTH = 16
TRIGGER_LEVELS = (1, 4, 8, 14)
BREAK_MARK = 0x100
"""Set beside a received zero byte that was a break condition."""


class Ier(IntEnum):
    """Interrupt enable register."""

    RECEIVED = 1
    TRANSMITTER_EMPTY = 2
    LINE_STATUS = 4
    MODEM_STATUS = 8


class Lsr(IntEnum):
    """Line status register."""

    DATA_READY = 0x01
    OVERRUN = 0x02
    PARITY = 0x04
    FRAMING = 0x08
    BREAK = 0x10
    THR_EMPTY = 0x20
    IDLE = 0x40
    FIFO_ERROR = 0x80
    ERRORS = 0x1E


class Mcr(IntEnum):
    """Modem control register."""

    DTR = 0x01
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10


class Iir(IntEnum):
    """Interrupt identification: the value read in bits 3..0, highest priority first."""

    LINE_STATUS = 0x06
    RECEIVED = 0x04
    TIMEOUT = 0x0C
    TRANSMITTER_EMPTY = 0x02
    MODEM_STATUS = 0x00
    NONE = 0x01


CONNECTED = 0xB0
"""MSR of a port with a listening terminal: DCD, DSR, CTS."""

_EMPTY = int(Lsr.THR_EMPTY | Lsr.IDLE)
_LOOP, _THR_ENABLED = int(Mcr.LOOP), int(Ier.TRANSMITTER_EMPTY)
_BYTES = tuple(bytes([value]) for value in range(256))
_OUT2, _WIRED_IF = int(Mcr.OUT2), Mcr.OUT2 | Mcr.LOOP

_SAVED = (
    *("_ier", "_fcr", "_lcr", "_mcr", "_scr", "_divisor", "_errors", "_modem", "_modem_delta"),
    *("_fifo", "_queue", "_thr_pending", "_timeout_pending", "_timeout_at"),
)


class Serial(LineOnly):
    """One 16550A: eight byte registers, an interrupt line, a terminal on the other end."""

    def __init__(
        self,
        clock: Clock,
        output: Callable[[bytes], None],
        irq: IrqLine,
        name: str = "serial",
    ) -> None:
        """`output` gets what the guest transmits, `irq` the level of the interrupt wire."""
        self.name = name
        self._clock = clock
        self._output = output
        self._irq = irq
        self._ier = self._fcr = self._lcr = self._mcr = self._scr = 0
        self._divisor = 12
        self._errors = 0
        self._modem, self._modem_delta = CONNECTED, 0
        self._fifo: list[int] = []
        self._queue = bytearray()
        self._thr_pending = self._timeout_pending = False
        self._timeout_at = 0  # cycle of the character timeout, 0 when none is running
        self._level: bool | None = None  # of the wire; None: not known
        self._polled = -2  # what poll_line() returned when `poll_changed` last heard of it
        self.poll_changed: Callable[[int], None] = _ignore
        self._sends: bool | None = None  # what `sends_changed` last heard
        self.sends_changed: Callable[[bool], None] = _ignore
        self._readers = (
            *(self._read_data, self._read_ier, self._read_iir, lambda: self._lcr),
            *(lambda: self._mcr, self._read_lsr, self._read_msr, lambda: self._scr),
        )
        self._writers = (
            *(self._write_data, self._write_ier, self._write_fcr, self._write_lcr),
            *(self._write_mcr, lambda _value: None, lambda _value: None, self._write_scr),
        )

    def read(self, offset: int, _size: int) -> int:
        """Return the byte register at `offset`."""
        value = self._readers[offset & 7]()
        self._update()
        return value

    def write(self, offset: int, _size: int, value: int) -> None:
        """Write the byte register at `offset`."""
        self._writers[offset & 7](value & 0xFF)
        self._update()

    def poll_line(self, _value: int) -> int:
        """Return what LSR reads while nothing has come in, else -1: it changes nothing."""
        return -1 if self._errors or self._fifo else _EMPTY

    def just_sends(self) -> bool:
        """Whether a write to THR sends a character and does nothing else."""
        return not (self._lcr & 0x80 or self._mcr & _LOOP or self._ier & _THR_ENABLED)

    def transmit(self, value: int) -> int:
        """Send `value` and return it, or -1 where a write to THR may do anything else."""
        if self._lcr & 0x80 or self._mcr & _LOOP or self._ier & _THR_ENABLED:
            return -1
        self.send(_BYTES[value])
        return value

    def send(self, data: bytes) -> None:
        """Send what was written to THR while nothing else would come of it."""
        self._output(data)
        self._thr_pending = True

    def receive(self, data: bytes) -> None:
        """Take input from the host; what the receiver cannot hold yet waits."""
        self._queue += data
        self._refill()
        self._update()

    def receive_break(self) -> None:
        """Signal a break condition on the line: a zero character with the break bit."""
        self._arrive(BREAK_MARK)
        self._update()

    def waiting(self) -> int:
        """Return how many bytes of host input the guest has not had room for."""
        return len(self._queue)

    def next_event(self) -> int | None:
        """Return the cycle of the character timeout, if one is running."""
        return self._timeout_at or None

    def fire(self) -> None:
        """The receiver has been left alone, half full, for four character times."""
        self._timeout_at = 0
        self._timeout_pending = bool(self._fifo)
        self._update()

    def save(self) -> State:
        """Registers, FIFO and waiting input."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)
        self._level = None
        self._tell_poll()

    # Registers, in the order of their offsets.

    def _read_data(self) -> int:
        if self._lcr & 0x80:
            return self._divisor & 0xFF
        value = self._fifo.pop(0) if self._fifo else 0
        self._show_errors()
        self._timeout_pending = False
        self._timeout_at = 0
        self._refill()
        self._start_timeout()
        return value & 0xFF

    def _write_data(self, value: int) -> None:
        if self._lcr & 0x80:
            self._divisor = self._divisor & 0xFF00 | value
            return
        self._thr_pending = False
        self._update()  # the line falls before it rises again: an edge for the PIC
        if self._mcr & Mcr.LOOP:
            self._arrive(value)
        else:
            self._output(bytes([value]))
        self._thr_pending = True

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & 0x80 else self._ier

    def _write_ier(self, value: int) -> None:
        if self._lcr & 0x80:
            self._divisor = self._divisor & 0x00FF | value << 8
            return
        if value & ~self._ier & Ier.TRANSMITTER_EMPTY:
            self._thr_pending = True  # enabling it while THR is empty raises it
        self._ier = value & 0x0F

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == Iir.TRANSMITTER_EMPTY:
            self._thr_pending = False  # reading IIR acknowledges this cause, and only this one
        return cause | (0xC0 if self._fcr & 1 else 0)

    def _write_fcr(self, value: int) -> None:
        if (value ^ self._fcr) & 1 or value & 3 == 3:
            self._fifo.clear()
            self._timeout_pending = False
            self._timeout_at = 0
        self._fcr = value & 0xC9 if value & 1 else 0  # the other bits count only with bit 0
        self._refill()

    def _write_lcr(self, value: int) -> None:
        begins_break = value & ~self._lcr & 0x40
        self._lcr = value
        if begins_break and self._mcr & Mcr.LOOP:
            self._arrive(BREAK_MARK)

    def _write_mcr(self, value: int) -> None:
        self._mcr = value & 0x1F
        self._set_modem_lines(_looped_lines(value) if value & Mcr.LOOP else CONNECTED)
        self._refill()

    def _read_lsr(self) -> int:
        value = self._errors | Lsr.THR_EMPTY | Lsr.IDLE
        if self._fifo:
            value |= Lsr.DATA_READY
        if self._fcr & 1 and any(entry & BREAK_MARK for entry in self._fifo):
            value |= Lsr.FIFO_ERROR
        self._errors = 0
        return int(value)

    def _read_msr(self) -> int:
        value = self._modem | self._modem_delta
        self._modem_delta = 0
        return value

    def _write_scr(self, value: int) -> None:
        self._scr = value

    # The receiver.

    def _room(self) -> int:
        return (FIFO_DEPTH if self._fcr & 1 else 1) - len(self._fifo)

    def _refill(self) -> None:
        """Move waiting host input into the receiver, unless loopback cuts the line."""
        room = self._room()
        if room <= 0 or not self._queue or self._mcr & Mcr.LOOP:
            return
        self._fifo += self._queue[:room]
        del self._queue[:room]
        self._show_errors()
        self._start_timeout()

    def _arrive(self, entry: int) -> None:
        """Take one character off the line, whether or not there is room (then it overruns)."""
        if self._room() > 0:
            self._fifo.append(entry)
        else:
            self._errors |= Lsr.OVERRUN
            if not self._fcr & 1:
                self._fifo[-1] = entry  # without FIFO the new character destroys the old one
        self._show_errors()
        self._start_timeout()

    def _show_errors(self) -> None:
        """LSR shows the errors of the character at the top of the FIFO."""
        if self._fifo and self._fifo[0] & BREAK_MARK:
            self._errors |= Lsr.BREAK
            self._fifo[0] &= ~BREAK_MARK

    def _start_timeout(self) -> None:
        """Four character times from the last arrival or read (PC16550D, "FIFO Interrupt Mode")."""
        if not (self._fcr & 1 and self._fifo) or self._timeout_pending:
            return
        bits = 1 + 5 + (self._lcr & 3) + bool(self._lcr & 8) + 1 + bool(self._lcr & 4)
        cycles = 4 * bits * (self._divisor or 0x10000) * self._clock.frequency // BAUD_BASE
        self._timeout_at = self._clock.now + max(cycles, 1)

    # Modem lines and the interrupt.

    def _set_modem_lines(self, lines: int) -> None:
        changed = self._modem ^ lines
        self._modem_delta |= changed >> 4 & 0x0B
        if changed & ~lines & 0x40:
            self._modem_delta |= 0x04  # trailing edge of the ring indicator
        self._modem = lines

    def _received_enough(self) -> bool:
        level = TRIGGER_LEVELS[self._fcr >> 6] if self._fcr & 1 else 1
        return len(self._fifo) >= level

    def _cause(self) -> int:
        """Return the highest-priority enabled cause, as IIR encodes it."""
        if self._ier & Ier.LINE_STATUS and self._errors & Lsr.ERRORS:
            return Iir.LINE_STATUS
        if self._ier & Ier.RECEIVED and self._received_enough():
            return Iir.RECEIVED
        if self._ier & Ier.RECEIVED and self._timeout_pending:
            return Iir.TIMEOUT
        if self._ier & Ier.TRANSMITTER_EMPTY and self._thr_pending:
            return Iir.TRANSMITTER_EMPTY
        if self._ier & Ier.MODEM_STATUS and self._modem_delta:
            return Iir.MODEM_STATUS
        return Iir.NONE

    def _tell_poll(self) -> None:
        polled = self.poll_line(0)
        if polled != self._polled:
            self._polled = polled
            self.poll_changed(polled)
        sends = self.just_sends()
        if sends is not self._sends:
            self._sends = sends
            self.sends_changed(sends)

    def _update(self) -> None:
        self._tell_poll()
        level = self._mcr & _WIRED_IF == _OUT2 and self._cause() != Iir.NONE
        if level is not self._level:
            self._level = level
            self._irq(level)


def _ignore(_state: int) -> None:
    """Nobody asks."""


def _looped_lines(mcr: int) -> int:
    """Return the modem inputs in loopback: RTS -> CTS, DTR -> DSR, OUT1 -> RI, OUT2 -> DCD."""
    return (
        (mcr & Mcr.RTS) << 3 | (mcr & Mcr.DTR) << 5 | (mcr & Mcr.OUT1) << 4 | (mcr & Mcr.OUT2) << 4
    )
