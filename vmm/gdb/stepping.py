"""Carrying out what a client ordered: steps, runs, and the way back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hwmodel.arch.vmcs import Field
from vmm.debug.session import Session
from vmm.debug.stop import Stop, StopKind
from vmm.gdb.orders import Continue, Step, StepRange
from vmm.gdb.queries import STEP_NOIRQ
from vmm.gdb.stub import Stub
from vmm.vcpu import Vcpu
from vmm.virtual import VirtualMemory

_FIRST_EXTERNAL: Final = 32
_NMI: Final = 2
_TYPE_AND_VECTOR: Final = 0x7FF
"""Of the interruption information; the type of an external interrupt is 0. A PC's first interrupt
controller begins with the vectors of exceptions."""
_GATE: Final = {64: 16, 32: 8, 16: 8}
_RANGE_MAX: Final = 1 << 20
Glance = Callable[[], bool]
"""Looks at the client: True if it wants the guest to stop."""


class Stepper:
    """Moves a session as a client's orders say."""

    def __init__(self, session: Session, glance: Glance) -> None:
        """`glance` is asked where the session itself does not come around."""
        self._session: Final = session
        self._glance: Final = glance

    def carry_out(self, stub: Stub, order: Continue | Step | StepRange) -> Stop:
        """Return the stop at which the order ended."""
        match order:
            case Continue() if stub.errand is not None:
                errand, stub.errand = stub.errand, None
                return errand(self._session)
            case Continue(back=True):
                return self._back(stub)
            case Continue():
                return self._forth(stub)
            case Step(vcpu=index, back=True):
                return self._session.reverse_step(1, vcpu=index)
            case Step(vcpu=index):
                return self._step(stub, index)
            case StepRange():
                return self._through(stub, order)

    def _forth(self, stub: Stub) -> Stop:
        """Run to the first stop whose condition holds."""
        while True:
            stop = self._session.resume()
            if self._counts(stub, stop):
                return stop
            if self._glance():
                return replace(stop, kind=StopKind.PAUSED, number=None)

    def _back(self, stub: Stub) -> Stop:
        """Run backwards. A watchpoint stops before the access: gdb wants to see the old value."""
        if stub.points.has_watches and (undone := self._undo_access()) is not None:
            return undone
        while True:
            stop = self._session.reverse_resume()
            if stop.kind is StopKind.WATCHPOINT:
                before = self._session.reverse_step(1, vcpu=stop.vcpu)
                return replace(stop, moment=before.moment)
            if self._counts(stub, stop):
                return stop

    def _undo_access(self) -> Stop | None:
        """If the step that led here was a watched access, go before it."""
        session, now = self._session, self._session.now
        before = session.reverse_step()
        if before.kind is StopKind.BEGIN or session.now >= now:
            return None
        again = session.step()
        if again.kind is StopKind.WATCHPOINT:
            return replace(again, moment=session.reverse_step().moment)
        if session.now != now:
            session.goto(now)
        return None

    def _counts(self, stub: Stub, stop: Stop) -> bool:
        point = stub.points.by_number(stop.number)
        if stop.kind is not StopKind.BREAKPOINT or point is None:
            return True
        return stub.points.holds(point, self._session.vm.vcpus[stop.vcpu])

    def _through(self, stub: Stub, order: StepRange) -> Stop:
        vcpu, pause = self._session.vm.vcpus[order.vcpu], StopKind.PAUSED
        stop = self._step(stub, order.vcpu)
        for count in range(_RANGE_MAX):
            is_inside = order.start <= vcpu.linear_rip() < order.end
            if stop.kind is not StopKind.GOAL or not is_inside:
                return stop
            if count % 64 == 0 and self._glance():
                return replace(stop, kind=pause)
            stop = self._step(stub, order.vcpu)
        return stop

    # ---- one step ----

    def _step(self, stub: Stub, index: int) -> Stop:
        """Make a step; if it led into an interrupt's handler and those are masked, come back."""
        session, vcpu = self._session, self._session.vm.vcpus[index]
        pcpu, pc, sp = vcpu.pcpu, vcpu.linear_rip(), vcpu.regs.rsp
        retired, delivered = session.instructions, pcpu.deliveries
        stop = session.step(vcpu=index)
        if not stub.steps_masked & STEP_NOIRQ or stop.kind is not StopKind.GOAL:
            return stop
        is_delivery = pcpu.deliveries > delivered and session.instructions == retired
        if not is_delivery or not is_external(vcpu):
            return stop
        return self._come_back(stub, index, pc, sp)

    def _come_back(self, stub: Stub, index: int, pc: int, sp: int) -> Stop:
        """Run a handler to its end, then make the step that was asked for."""
        session, vcpu = self._session, self._session.vm.vcpus[index]
        number = session.break_at(pc).number
        try:
            while True:
                stop = session.resume()
                if stop.number != number or stop.kind is not StopKind.BREAKPOINT:
                    return stop
                if stop.vcpu == index and vcpu.regs.rsp == sp:
                    break
                if self._glance():
                    return replace(stop, kind=StopKind.PAUSED, number=None)
        finally:
            session.remove(number)
        return self._step(stub, index)


def is_external(vcpu: Vcpu) -> bool:
    """Whether a virtual CPU stands at the first instruction of an interrupt's or NMI's handler."""
    entry = _GATE[vcpu.code_bits()] if vcpu.mode() != "real" else 4
    base, limit = vcpu.vmcs[Field.GUEST_IDTR_BASE], vcpu.vmcs[Field.GUEST_IDTR_LIMIT]
    table = VirtualMemory(vcpu).look(base, min(limit + 1, 256 * entry)) or b""
    here, vectors = vcpu.regs.rip, range(len(table) // entry)
    found = [n for n in vectors if _handler(table[n * entry : (n + 1) * entry]) == here]
    injected = vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] & _TYPE_AND_VECTOR
    return any(n >= _FIRST_EXTERNAL or n in (_NMI, injected) for n in found)


def _handler(gate: bytes) -> int:
    """Return the offset in a gate of an IDT, by its size."""
    low = int.from_bytes(gate[:2], "little")
    if len(gate) == 4:
        return low
    middle = int.from_bytes(gate[6:8], "little")
    return low | middle << 16 | int.from_bytes(gate[8:12], "little") << 32
