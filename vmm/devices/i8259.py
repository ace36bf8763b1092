"""One 8259A interrupt controller (Intel 8259A data sheet), eight request lines and one output.

The priority resolver works on bit numbers rotated so that 0 is the highest priority. A
level-triggered request follows its line: if it falls before it is acknowledged, the acknowledge
cycle answers with IR7, the spurious interrupt. An edge-triggered one stays latched until it is
acknowledged, as PC chipsets and KVM have it (the lone chip of the data sheet would answer IR7).
"""

from vmm.devices.device import IrqLine

SPURIOUS = 7

_SAVED = (
    *("irr", "isr", "imr", "lines", "latched", "elcr", "vector_base", "lowest"),
    *("auto_eoi", "rotate_on_auto_eoi", "special_mask", "fully_nested", "poll", "read_isr"),
    *("init_step", "needs_icw4", "single"),
)


class I8259:
    """The registers and the priority logic of one chip."""

    def __init__(self, output: IrqLine, elcr_mask: int, cascade: int = 0) -> None:
        """`elcr_mask`: lines that may be level-triggered; `cascade`: lines with a slave behind."""
        self._output = output
        self.elcr_mask = elcr_mask
        self.cascade = cascade
        self.irr = self.isr = self.imr = 0
        self.lines = 0
        self.latched = 0  # lines that have risen since they were last acknowledged
        self.elcr = 0
        self.vector_base = 0
        self.lowest = 7
        self.auto_eoi = self.rotate_on_auto_eoi = False
        self.special_mask = self.fully_nested = False
        self.poll = self.read_isr = False
        self.init_step = 0  # number of the ICW that is awaited, 0 when initialized
        self.needs_icw4 = self.single = False
        self.asserted = False

    def set_line(self, number: int, level: bool) -> None:
        """Drive request line `number`."""
        bit = 1 << number
        if not level:
            self.lines &= ~bit
        elif not self.lines & bit:
            self.lines |= bit
            self.latched |= bit
        self.update()

    def update(self) -> None:
        """Recompute the requests from the lines, and the output from the requests."""
        self.irr = self.lines & self.elcr | self.latched & ~self.elcr
        self._drive(self.pending() is not None)

    def pending(self) -> int | None:
        """Return the line that would be acknowledged now, or None."""
        requests = self.irr & ~self.imr
        if not requests:
            return None
        serviced = self.isr & ~self.imr if self.special_mask else self.isr
        if self.fully_nested:
            serviced &= ~self.cascade  # a slave may nest inside its own line
        first = self._highest(requests)
        if serviced and self._rank(first) >= self._rank(self._highest(serviced)):
            return None
        return first

    def acknowledge(self) -> int:
        """Run an INTA cycle; return the line's number, SPURIOUS (not in service) if none asks."""
        number = self.pending()
        if number is None:
            return SPURIOUS
        bit = 1 << number
        self.latched &= ~bit
        if not self.auto_eoi:
            self.isr |= bit
        elif self.rotate_on_auto_eoi:
            self.lowest = number
        self._drive(asserted=False)  # INTA drops the output: a second request makes a new edge
        self.update()
        return number

    def read_command(self) -> int:
        """Read A0 = 0: IRR or ISR as OCW3 chose, or the poll word."""
        if self.poll:
            return self._polled()
        return self.isr if self.read_isr else self.irr

    def read_data(self) -> int:
        """Read A0 = 1: the mask, or the poll word."""
        return self._polled() if self.poll else self.imr

    def write_command(self, value: int) -> None:
        """Write A0 = 0: ICW1, OCW3 or OCW2, told apart by bits 4 and 3."""
        if value & 0x10:
            self._icw1(value)
        elif value & 0x08:
            self._ocw3(value)
        else:
            self._ocw2(value)
        self.update()

    def write_data(self, value: int) -> None:
        """Write A0 = 1: the ICW that is awaited, else OCW1, the mask."""
        if self.init_step == 0:
            self.imr = value
        elif self.init_step == 2:
            self.vector_base = value & 0xF8
            self.init_step = 3 if not self.single else 4 if self.needs_icw4 else 0
        elif self.init_step == 3:
            self.init_step = 4 if self.needs_icw4 else 0  # the cascade is soldered on a PC
        else:
            self.auto_eoi = bool(value & 0x02)
            self.fully_nested = bool(value & 0x10)
            self.init_step = 0
        self.update()

    def write_elcr(self, value: int) -> None:
        """Choose level (1) or edge (0) for each line that allows it."""
        self.elcr = value & self.elcr_mask
        self.update()

    def save(self) -> list[int]:
        """All registers, in the order of _SAVED."""
        return [int(getattr(self, name)) for name in _SAVED]

    def restore(self, values: list[int]) -> None:
        """Take over what save() returned, without touching the output wire."""
        for name, value in zip(_SAVED, values, strict=True):
            setattr(self, name, type(getattr(self, name))(value))
        self.asserted = self.pending() is not None

    def _drive(self, asserted: bool) -> None:
        if asserted != self.asserted:
            self.asserted = asserted
            self._output(asserted)

    def _icw1(self, value: int) -> None:
        """Initialization: edge sense, mask, service and priority are reset."""
        self.latched = self.isr = self.imr = 0
        self.lowest = 7
        self.special_mask = self.poll = self.read_isr = False
        self.auto_eoi = self.rotate_on_auto_eoi = self.fully_nested = False
        self.single = bool(value & 0x02)
        self.needs_icw4 = bool(value & 0x01)
        self.init_step = 2

    def _ocw2(self, value: int) -> None:
        """End of interrupt and rotation, by the R, SL and EOI bits."""
        command, level = value >> 5, value & 7
        if command in (1, 5):  # non-specific EOI
            serviced = self.isr & ~self.imr if self.special_mask else self.isr
            if serviced:
                level = self._highest(serviced)
                self.isr &= ~(1 << level)
                if command == 5:
                    self.lowest = level
        elif command in (3, 7):  # specific EOI
            self.isr &= ~(1 << level)
        elif command in (0, 4):
            self.rotate_on_auto_eoi = command == 4
        if command in (6, 7):
            self.lowest = level

    def _ocw3(self, value: int) -> None:
        if value & 0x40:
            self.special_mask = bool(value & 0x20)
        self.poll = bool(value & 0x04)
        if value & 0x02:
            self.read_isr = bool(value & 0x01)

    def _polled(self) -> int:
        """A read in poll mode is an acknowledge; bit 7 says whether anything asked."""
        self.poll = False
        if self.pending() is None:
            return 0
        return 0x80 | self.acknowledge()

    def _rank(self, number: int) -> int:
        return (number - self.lowest - 1) & 7

    def _highest(self, bits: int) -> int:
        return min((n for n in range(8) if bits >> n & 1), key=self._rank)
