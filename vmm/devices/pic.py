"""The PC's pair of 8259A: sixteen lines, the slave's output on the master's line 2.

Offsets: 0, 1 master command and data; 2, 3 slave command and data; 4, 5 the edge/level control
registers (ELCR) of master and slave, in which lines 0, 1, 2, 8 and 13 stay edge-triggered.
"""

from vmm.devices.device import IrqLine, State, Untimed
from vmm.devices.i8259 import I8259

CASCADE_LINE = 2
MASTER_ELCR, SLAVE_ELCR = 0xF8, 0xDE


class Pic(Untimed):
    """Two cascaded 8259A with one output to the processor."""

    def __init__(self, output: IrqLine, name: str = "pic") -> None:
        """`output` is the INTR wire."""
        self.name = name
        self.master = I8259(output, MASTER_ELCR, cascade=1 << CASCADE_LINE)
        self.slave = I8259(self._cascade, SLAVE_ELCR)

    def set_irq(self, number: int, level: bool) -> None:
        """Drive line 0..15; line 2 is the slave's and cannot be driven."""
        if number >= 8:
            self.slave.set_line(number - 8, level)
        elif number != CASCADE_LINE:
            self.master.set_line(number, level)

    def pending(self) -> bool:
        """True while INTR is asserted."""
        return self.master.asserted

    def acknowledge(self) -> int:
        """Run the processor's INTA cycle and return the vector (that of a spurious IRQ 7 or 15)."""
        line = self.master.acknowledge()
        if line == CASCADE_LINE:
            return self.slave.vector_base + self.slave.acknowledge()
        return self.master.vector_base + line

    def read(self, offset: int, _size: int) -> int:
        """Return a register; one of a chip in poll mode acknowledges."""
        chip = self.slave if offset in (2, 3, 5) else self.master
        if offset >= 4:
            return chip.elcr
        return chip.read_data() if offset & 1 else chip.read_command()

    def write(self, offset: int, _size: int, value: int) -> None:
        """Write a register."""
        chip = self.slave if offset in (2, 3, 5) else self.master
        value &= 0xFF
        if offset >= 4:
            chip.write_elcr(value)
        elif offset & 1:
            chip.write_data(value)
        else:
            chip.write_command(value)

    def save(self) -> State:
        """Both chips."""
        return {"version": 1, "master": self.master.save(), "slave": self.slave.save()}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        for chip, saved in ((self.master, state["master"]), (self.slave, state["slave"])):
            assert isinstance(saved, list)
            chip.restore(saved)

    def _cascade(self, level: bool) -> None:
        self.master.set_line(CASCADE_LINE, level)
