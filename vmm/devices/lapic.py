"""A local APIC: the software path of one processor's interrupts.

Its registers are one 4 KiB page (`page`), reached by MMIO in xAPIC mode and by MSR in x2APIC mode
(SDM, "Advanced Programmable Interrupt Controller"). Not modelled: arbitration, SMI, CMCI,
EOI-broadcast suppression; delivery takes no time, so its status bit is never seen set.
"""

from collections.abc import Callable
from typing import ClassVar

from vmm.devices import lapic_ipi, lapic_msr
from vmm.devices.device import Clock, State
from vmm.devices.lapic_bus import EVERYONE, LOCAL_MODES, ApicBus, DeliveryMode, Message
from vmm.devices.lapic_logical import matches
from vmm.devices.lapic_msr import BSP, DEFAULT_BASE, ENABLED, EXTENDED, Mode, mode_of
from vmm.devices.lapic_pins import CpuPins, ExternalController
from vmm.devices.lapic_registers import (
    LVT_BITS,
    LVT_WITH_MODE,
    MASKED,
    PLAIN,
    READABLE,
    SVR_ENABLED,
    TIMED,
    WRITABLE,
    Esr,
    Reg,
    RegisterPage,
)
from vmm.devices.lapic_timer import ApicTimer

PAGE_SIZE = 4096
_IRR, _MODE, _XAPIC = int(Reg.IRR), int(Mode.X2APIC), int(Mode.XAPIC)


class LocalApic:
    """One processor's local APIC."""

    def __init__(
        self,
        clock: Clock,
        bus: ApicBus,
        apic_id: int,
        pins: CpuPins,
        *,
        x2apic: bool = False,
        physical_bits: int = 46,
        pic: ExternalController | None = None,
        crystal_hz: int | None = None,
        reschedule: Callable[[], None] = lambda: None,
    ) -> None:
        """APIC 0 is the bootstrap processor's.

        `x2apic` and `physical_bits` are what the CPU model offers; `pic` drives LINT0;
        `crystal_hz` feeds the timer (default: the clock's rate); `reschedule` hears that
        next_event() may have changed.
        """
        self.name = f"lapic{apic_id}"
        self.apic_id = apic_id
        self.page = RegisterPage()
        self.timer = ApicTimer(clock, lambda: clock.now, crystal_hz)
        self.base = DEFAULT_BASE | ENABLED | (BSP if apic_id == 0 else 0)
        self.base_reserved = ~((1 << physical_bits) - PAGE_SIZE | BSP | ENABLED) & (1 << 64) - 1
        if x2apic:
            self.base_reserved &= ~EXTENDED
        self._bus = bus
        self._pins = pins
        self._pic = pic
        self.settle: Callable[[], None] = lambda: None  # before anybody looks at ISR: PV EOI
        self.moved: Callable[[], None] = lambda: None  # IA32_APIC_BASE has changed
        self._reschedule = reschedule
        self._errors = 0  # found since ESR was last written
        self._lint = [0, 0]
        self._reset(apic_id << 24)
        if self.base & BSP:
            self._wire_virtually()
        bus.attach(self)

    # What the vCPU asks.

    def pending_vector(self) -> int | None:
        """Return the highest requested vector if its class is above the processor priority."""
        vector = self.page.highest(_IRR)
        return vector if vector >= 0 and vector >> 4 > self.priority() >> 4 else None

    def interrupt_pending(self) -> bool:
        """True if INTR or a deliverable vector waits for the processor to open its window."""
        return self.external_pending() or self.pending_vector() is not None

    def acknowledge(self) -> int:
        """Take the interrupt: the PIC's first, then the highest; else the spurious vector."""
        if self._pic is not None and self.external_pending():
            return self._pic.acknowledge()
        vector = self.pending_vector()
        if vector is None:
            return self.page[Reg.SVR] & 0xFF
        self.page.set_bit(Reg.IRR, vector, value=False)
        self.page.set_bit(Reg.ISR, vector, value=True)
        return vector

    def priority(self) -> int:
        """Return the processor priority: the higher class of TPR and of what is in service."""
        self.settle()
        task, servicing = self.page.bytes[Reg.TPR], self.page.highest(Reg.ISR)
        return task if task >> 4 >= servicing >> 4 else servicing & 0xF0

    @property
    def cr8(self) -> int:
        """The task priority class, which CR8 shows even while the APIC is disabled."""
        return self.page.bytes[Reg.TPR] >> 4

    @cr8.setter
    def cr8(self, value: int) -> None:
        self.page[Reg.TPR] = (value & 15) << 4

    def covers(self, address: int) -> bool:
        """True if this processor's access to guest-physical `address` is to its local APIC."""
        return address >> 12 == self.base >> 12 and self.base & _MODE == _XAPIC

    def lint(self, pin: int, level: bool) -> None:
        """Drive LINT0 or LINT1; an ExtINT entry is polled, the others act on the rising edge."""
        rises = level and not self._lint[pin]
        self._lint[pin] = int(level)
        if not rises:
            return
        if mode_of(self.base) is not Mode.DISABLED:
            self._deliver_local((Reg.LVT_LINT0, Reg.LVT_LINT1)[pin])
        elif pin == 1:
            self._pins.nmi()  # without an APIC the pins are INTR and NMI
        self._pins.wake()

    def read_msr(self, index: int) -> int | None:
        """RDMSR of 0x1b, 0x6e0 or 0x800-0x8ff; None is a #GP."""
        return lapic_msr.read(self, index)

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR of 0x1b, 0x6e0 or 0x800-0x8ff; False is a #GP."""
        if index == lapic_msr.TSC_DEADLINE_MSR:
            self._reschedule()
        return lapic_msr.write(self, index, value)

    def is_addressed(self, destination: int, *, logical: bool) -> bool:
        """Tell whether a message to `destination` is for this processor."""
        if mode_of(self.base) is Mode.DISABLED or destination == EVERYONE:
            return mode_of(self.base) is not Mode.DISABLED
        if not logical:
            return destination == self._current_id()
        return matches(destination, self.page, x2apic=self._is_x2apic)

    def accept(self, message: Message) -> bool:
        """Take a message; False while it cannot be taken."""
        if message.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY):
            return self._request(message.vector, level=message.level_triggered)
        if message.mode is DeliveryMode.NMI:
            self._pins.nmi()
        elif message.mode is DeliveryMode.INIT:
            self._reset(self.page[Reg.ID])  # INIT leaves the ID and IA32_APIC_BASE alone
            self._pins.init()
        elif message.mode is DeliveryMode.STARTUP:
            self._pins.sipi(message.vector)
        else:
            return False
        return True

    # The register page as a device: offsets 0 to 0xfff.

    def read(self, offset: int, size: int) -> int:
        """Return bytes of a register; the twelve bytes behind each read as zero."""
        if offset in PLAIN and size == 4:  # the way of almost every read
            self.settle()
            return int.from_bytes(self.page.bytes[offset : offset + 4], "little")
        value = self.read_register(offset & 0xFF0)
        return value >> 8 * (offset & 15) & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a whole register; other forms are dropped, as the manual leaves them undefined."""
        if offset & 15 == 0 and size >= 4:
            self.write_register(offset, value & 0xFFFF_FFFF)

    def next_event(self) -> int | None:
        """Return the timer's next expiry, if it would interrupt."""
        if self.page[Reg.LVT_TIMER] & MASKED:
            return None
        return self.timer.next_expiry()

    def fire(self) -> None:
        """Deliver the timer's interrupt."""
        self.run_timer()

    def run_timer(self) -> None:
        """Deliver an expiry that is due."""
        if self.timer.expire():
            self._deliver_local(Reg.LVT_TIMER)
            self._reschedule()

    def read_register(self, offset: int) -> int:
        """Return a 32-bit register."""
        if offset not in READABLE or offset == Reg.SELF_IPI:
            self._error(Esr.ILLEGAL_REGISTER)
            return 0
        self.settle()
        if offset == Reg.PPR:
            return self.priority()
        if offset == Reg.TIMER_CURRENT:
            self.run_timer()
            return self.timer.current()
        return self.page[offset]

    def write_register(self, offset: int, value: int) -> None:
        """Write a 32-bit register, with its effects."""
        self.settle()
        if self.timer.armed:
            self.run_timer()
        if action := self._ACTIONS.get(offset):
            action(self, value)
        elif offset in LVT_BITS:
            self._write_lvt(offset, value)
        elif offset in WRITABLE:
            self.page[offset] = value & WRITABLE[offset]
        elif offset not in READABLE:
            self._error(Esr.ILLEGAL_REGISTER)
        if offset in TIMED:
            self._reschedule()

    def change_base(self, value: int) -> None:
        """Take a valid IA32_APIC_BASE; disabling loses all state, x2APIC renames."""
        old, new = mode_of(self.base), mode_of(value)
        self.base = value
        self.moved()
        if old is new:
            return
        if new is Mode.X2APIC:
            self.page[Reg.ID] = self.apic_id
            self.page[Reg.LDR] = self.apic_id >> 4 << 16 | 1 << (self.apic_id & 15)
            self.page[Reg.ICR_HIGH] = 0
        elif new is Mode.DISABLED:
            self._reset(self.apic_id << 24)

    def save(self) -> State:
        """The page, IA32_APIC_BASE, the timer and the error latch."""
        self.settle()
        return {
            "version": 1,
            "page": self.page.contents(),
            "timer": self.timer.save(),
            "rest": [self.base, self._errors, *self._lint],
        }

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        page, timer, rest = state["page"], state["timer"], state["rest"]
        assert isinstance(page, bytes)
        assert isinstance(timer, list)
        assert isinstance(rest, list)
        self.page.fill(page)
        self.timer.restore(timer)
        self.base, self._errors, *self._lint = rest
        self.moved()
        self._reschedule()

    @property
    def _is_x2apic(self) -> bool:
        return mode_of(self.base) is Mode.X2APIC

    def _current_id(self) -> int:
        return self.page[Reg.ID] >> (0 if self._is_x2apic else 24)

    def _reset(self, identity: int) -> None:
        """The state after power-up or INIT, with the ID register given."""
        self.page.reset(identity, x2apic=self._is_x2apic)
        self.timer.reset()
        self._errors = 0
        self._reschedule()

    def _wire_virtually(self) -> None:
        """What firmware leaves on the bootstrap processor: LINT0 = the PIC, LINT1 = NMI."""
        self.page[Reg.LVT_LINT0] = DeliveryMode.EXTINT << 8
        self.page[Reg.LVT_LINT1] = DeliveryMode.NMI << 8

    def external_pending(self) -> bool:
        """Whether INTR passes: LINT0 is an unmasked ExtINT, or the BSP's APIC is switched off."""
        if self._pic is None or not self._pic.pending():
            return False
        if mode_of(self.base) is Mode.DISABLED:
            return bool(self.base & BSP)
        return self.page[Reg.LVT_LINT0] & (MASKED | 0x700) == DeliveryMode.EXTINT << 8

    def _request(self, vector: int, *, level: bool = False) -> bool:
        """Set a request bit, unless software has switched the APIC off."""
        if not self.page[Reg.SVR] & SVR_ENABLED:
            return False
        if vector < 16:
            self._error(Esr.RECEIVE_ILLEGAL_VECTOR)
            return False
        self.page.request(vector)
        self.page.set_bit(Reg.TMR, vector, value=level)
        self._pins.wake()
        return True

    def _deliver_local(self, lvt: Reg) -> None:
        entry = self.page[lvt]
        if entry & MASKED:
            return
        mode = DeliveryMode(entry >> 8 & 7 if lvt in LVT_WITH_MODE else 0)
        if mode in LOCAL_MODES:
            self.accept(Message(mode, entry & 0xFF, self.apic_id))

    def _error(self, bit: Esr) -> None:
        """Note an error and raise the error interrupt; an illegal vector there only adds a bit."""
        if self._errors & bit:
            return
        self._errors |= bit
        self._deliver_local(Reg.LVT_ERROR)

    def _write_id(self, value: int) -> None:
        self.page[Reg.ID] = value & 0xFF00_0000

    def _write_ldr(self, value: int) -> None:
        self.page[Reg.LDR] = value & 0xFF00_0000

    def _write_dfr(self, value: int) -> None:
        self.page[Reg.DFR] = value | 0x0FFF_FFFF

    def _end_of_interrupt(self, _value: int) -> None:
        vector = self.page.highest(Reg.ISR)
        if vector >= 0:
            self.end(vector)

    def end(self, vector: int) -> None:
        """Take an interrupt out of service."""
        self.page.set_bit(Reg.ISR, vector, value=False)
        if self.page.test_bit(Reg.TMR, vector):
            self.serviced(vector)

    def serviced(self, vector: int) -> None:
        """Tell the I/O APICs that a level-triggered interrupt has ended."""
        self._bus.broadcast_eoi(vector)

    def _write_svr(self, value: int) -> None:
        """Switching the APIC off by software masks every LVT entry."""
        self.page[Reg.SVR] = value & WRITABLE[Reg.SVR]
        if not value & SVR_ENABLED:
            for lvt in LVT_BITS:
                self.page[lvt] |= MASKED

    def _write_esr(self, _value: int) -> None:
        self.page[Reg.ESR], self._errors = self._errors, 0

    def _write_icr(self, value: int) -> None:
        self.page[Reg.ICR] = value & WRITABLE[Reg.ICR]
        self._send_ipi(value)

    def _send_ipi(self, value: int) -> None:
        if lapic_ipi.is_illegal(value):
            self._error(Esr.SEND_ILLEGAL_VECTOR)
            return
        destination = self.page[Reg.ICR_HIGH]
        if not self._is_x2apic:
            destination >>= 24
            destination = EVERYONE if destination == 0xFF else destination
        lapic_ipi.send(self._bus, self, value, destination)

    def _write_icr_high(self, value: int) -> None:
        self.page[Reg.ICR_HIGH] = value if self._is_x2apic else value & 0xFF00_0000

    def _write_lvt(self, offset: int, value: int) -> None:
        value &= LVT_BITS[offset]
        if not self.page[Reg.SVR] & SVR_ENABLED:
            value |= MASKED
        self.page[offset] = value
        if offset == Reg.LVT_TIMER:
            self.timer.set_mode(value >> 17 & 3)

    def _write_timer_initial(self, value: int) -> None:
        self.timer.set_initial(value)
        self.page[Reg.TIMER_INITIAL] = self.timer.initial

    def _write_timer_divide(self, value: int) -> None:
        self.page[Reg.TIMER_DIVIDE] = value & WRITABLE[Reg.TIMER_DIVIDE]
        self.timer.set_divide(value)

    def _write_self_ipi(self, value: int) -> None:
        if self._is_x2apic:
            self._send_ipi(value & 0xFF | lapic_ipi.Shorthand.SELF << 18)
        else:
            self._error(Esr.ILLEGAL_REGISTER)

    _ACTIONS: ClassVar[dict[int, Callable[["LocalApic", int], None]]] = {
        Reg.ID: _write_id,
        Reg.LDR: _write_ldr,
        Reg.DFR: _write_dfr,
        Reg.EOI: _end_of_interrupt,
        Reg.SVR: _write_svr,
        Reg.ESR: _write_esr,
        Reg.ICR: _write_icr,
        Reg.ICR_HIGH: _write_icr_high,
        Reg.TIMER_INITIAL: _write_timer_initial,
        Reg.TIMER_DIVIDE: _write_timer_divide,
        Reg.SELF_IPI: _write_self_ipi,
    }
