"""Asynchronous page faults: the guest is told that memory is swapped out, and when it is back.

Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_ASYNC_PF_EN, _INT and _ACK. "Not present" is a #PF
with a token in CR2 and a flag in the shared area, only where the guest can switch to another task:
interrupts on, and in ring 0 only if it asked for that. "Ready" is an interrupt with the token in
the shared area, one at a time, the next one after an acknowledgement.
"""

from dataclasses import dataclass, field
from typing import Final

from vmm.pv.dialect import Machine, Processor, State
from vmm.pv.kvm.abi import KvmMsr
from vmm.pv.shared import SharedArea

BYTES: Final = 64
FLAGS, TOKEN = 0, 4  # offsets; Linux uapi/asm/kvm_para.h (struct kvm_vcpu_pv_apf_data)
NOT_PRESENT: Final = 1  # KVM_PV_REASON_PAGE_NOT_PRESENT
EVERYONE: Final = 0xFFFF_FFFF  # a token that wakes every task that waits
ENABLED, SEND_ALWAYS, BY_INTERRUPT = 1 << 0, 1 << 1, 1 << 3
_ADDRESS: Final = ~0x3F
_RESERVED: Final = 0x34  # bits 4, 5; bit 2 is for nested guests (ASYNC_PF_VMEXIT), not offered
_VECTOR: Final = 0xFF
_TOKEN_SHIFT: Final = 12
_FIXED: Final = 0  # delivery mode


@dataclass(slots=True)
class _Waiting:
    """One virtual CPU's share: MSRs, outstanding tokens by page, tokens to be told as ready."""

    enable: int = 0
    vector: int = 0
    last: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)


class AsyncPageFaults:
    """The MSRs of all virtual CPUs, and who waits for which page."""

    def __init__(self, machine: Machine, *, by_interrupt: bool) -> None:
        """`by_interrupt`: whether "ready" may be told at all; without it nothing is."""
        self._machine: Final = machine
        self._by_interrupt: Final = by_interrupt
        self._waiting = [_Waiting() for _ in range(machine.cpus)]
        self._cpus: list[Processor] = []

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""
        self._cpus = processors

    def read(self, cpu: Processor, number: int) -> int | None:
        """Return what was written; the acknowledgement reads zero."""
        own = self._waiting[cpu.index]
        return {KvmMsr.ASYNC_PF_EN: own.enable, KvmMsr.ASYNC_PF_INT: own.vector}.get(
            KvmMsr(number), 0
        )

    def write(self, cpu: Processor, number: int, value: int) -> bool:
        """Enable, choose the vector, or acknowledge; reserved bits are #GP."""
        if number == KvmMsr.ASYNC_PF_EN:
            return self._write_enable(cpu, value)
        if number == KvmMsr.ASYNC_PF_INT:
            if value & ~_VECTOR:
                return False
            self._waiting[cpu.index].vector = value
        elif value & 1:
            self._tell_ready(cpu)
        return True

    def _write_enable(self, cpu: Processor, value: int) -> bool:
        """Whoever switches it off or on again is told to wake everyone: old tokens are void."""
        if value & _RESERVED or (value & BY_INTERRUPT and not self._by_interrupt):
            return False
        if value & ENABLED and not self._area(value).is_memory():
            return False
        own = self._waiting[cpu.index]
        outstanding = bool(own.tokens or own.ready)
        own.tokens.clear()
        own.ready.clear()
        own.enable = value
        if outstanding and self._is_on(own):
            own.ready.append(EVERYONE)
            self._tell_ready(cpu)
        return True

    def page_absent(self, cpu: Processor, page: int) -> bool:
        """Tell the guest to do something else meanwhile; False if it has to wait."""
        own = self._waiting[cpu.index]
        if not self._is_on(own) or page in own.tokens or not cpu.takes_interrupts():
            return False
        if cpu.cpl() == 0 and not own.enable & SEND_ALWAYS:
            return False
        own.last = own.last % 0xFFFFE + 1
        token = own.tokens[page] = own.last << _TOKEN_SHIFT | cpu.index
        self._area(own.enable).write(FLAGS, 4, NOT_PRESENT)
        cpu.raise_page_fault(token)
        return True

    def page_ready(self, page: int) -> None:
        """The page is back: whoever was told that it is not is told so."""
        for cpu in self._cpus:
            own = self._waiting[cpu.index]
            if page in own.tokens:
                own.ready.append(own.tokens.pop(page))
                self._tell_ready(cpu)

    def _tell_ready(self, cpu: Processor) -> None:
        """Put the next token where the guest looks, if it took the one before."""
        own = self._waiting[cpu.index]
        area = self._area(own.enable)
        if not own.ready or not self._is_on(own) or area.read(TOKEN, 4):
            return
        if cpu.interrupt(_FIXED, own.vector):
            area.write(TOKEN, 4, own.ready.pop(0))

    def _is_on(self, own: _Waiting) -> bool:
        return own.enable & (ENABLED | BY_INTERRUPT) == ENABLED | BY_INTERRUPT

    def _area(self, value: int) -> SharedArea:
        return SharedArea(self._machine.memory, value & _ADDRESS, BYTES)

    def reset(self, index: int) -> None:
        """Nobody waits any more."""
        self._waiting[index] = _Waiting()

    def save(self) -> State:
        """Everything, virtual CPU by virtual CPU."""
        return {
            "cpus": [
                [
                    one.enable,
                    one.vector,
                    one.last,
                    [list(t) for t in one.tokens.items()],
                    one.ready[:],
                ]
                for one in self._waiting
            ]
        }

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        cpus = state["cpus"]
        assert isinstance(cpus, list)
        self._waiting[:] = [
            _Waiting(enable, vector, last, dict(tokens), ready[:])
            for enable, vector, last, tokens, ready in cpus
        ]
