"""KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst), one method each."""

from collections.abc import Callable, Iterator
from struct import pack
from typing import Final

from vmm.pv.dialect import Hypercall, Machine, Processor
from vmm.pv.kvm.abi import Call, Error, Feature
from vmm.pv.kvm.features import Offer
from vmm.pv.shared import SharedArea

Handler = Callable[[Processor, Hypercall], int]
_LOW: Final = 0xFFFF_FFFF
_LOGICAL_OR_SHORTHAND: Final = 0x800 | 0xC_0000  # ICR: Linux asm/apicdef.h
_WALLCLOCK: Final = 0  # KVM_CLOCK_PAIRING_WALLCLOCK, Linux uapi/asm/kvm_para.h
_PAIRING_BYTES: Final = 64  # struct kvm_clock_pairing
_NS: Final = 1_000_000_000


class Calls:
    """The calls of one VM, by number."""

    def __init__(self, machine: Machine, offer: Offer) -> None:
        """Those of features that are not offered are unknown."""
        self._machine: Final = machine
        self._cpus: list[Processor] = []
        self.handlers: Final[dict[int, Handler]] = {
            Call.VAPIC_POLL_IRQ: _poll_irq,
            Call.CLOCK_PAIRING: self._pair_clocks,
        }
        for feature, call, handler in (
            (Feature.PV_UNHALT, Call.KICK_CPU, self._kick),
            (Feature.PV_SEND_IPI, Call.SEND_IPI, self._send_ipi),
            (Feature.PV_SCHED_YIELD, Call.SCHED_YIELD, self._yield),
        ):
            if feature in offer:
                self.handlers[call] = handler

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""
        self._cpus = processors

    def _find(self, apic_id: int) -> Processor | None:
        return next((cpu for cpu in self._cpus if cpu.answers_to(apic_id)), None)

    def _kick(self, cpu: Processor, call: Hypercall) -> int:
        """Wake the processor with APIC identifier a1 from HLT, and let it run."""
        if target := self._find(call.arguments[1] & _LOW):
            target.kick()
            cpu.yield_to(target.index)
        return 0

    def _yield(self, cpu: Processor, call: Hypercall) -> int:
        """Let the processor with APIC identifier a0 run, if it could."""
        if target := self._find(call.arguments[0] & _LOW):
            cpu.yield_to(target.index)
        return 0

    def _send_ipi(self, cpu: Processor, call: Hypercall) -> int:
        """Send a3, as in ICR, to the processors in the bitmap a1:a0 from identifier a2 on."""
        low, high, first, icr, *_ = call.arguments
        if icr & _LOGICAL_OR_SHORTHAND:
            return -Error.INVAL
        targets = list(_members(low, high << (64 if call.wide else 32), first & _LOW))
        cpu.work(len(targets))
        found = [one for number in targets if (one := self._find(number))]
        return sum(one.interrupt(icr >> 8 & 7, icr & 0xFF) for one in found)

    def _pair_clocks(self, cpu: Processor, call: Hypercall) -> int:
        """Write date and guest TSC of one moment to guest-physical a0; a1 is the kind of clock."""
        gpa, kind, *_ = call.arguments
        if kind != _WALLCLOCK:
            return -Error.OPNOTSUPP
        area = SharedArea(self._machine.memory, gpa, _PAIRING_BYTES)
        if not area.is_memory():
            return -Error.FAULT
        clock = self._machine.clock
        seconds, ns = divmod(clock.ns(), _NS)
        tsc = clock.tsc() + cpu.tsc_offset() & (1 << 64) - 1
        area.store(0, pack("<qqQI36x", self._machine.epoch + seconds, ns, tsc, 0))
        return 0


def _poll_irq(_cpu: Processor, _call: Hypercall) -> int:
    """Exit, so that pending interrupts are looked at: any hypercall does that."""
    return 0


def _members(low: int, high: int, first: int) -> Iterator[int]:
    """Yield the numbers in a bitmap whose bit 0 is number `first`."""
    bitmap = low | high
    while bitmap:
        bit = bitmap & -bitmap
        yield first + bit.bit_length() - 1
        bitmap ^= bit
