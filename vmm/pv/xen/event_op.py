"""HYPERVISOR_event_channel_op (public/event_channel.h)."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from vmm.pv.xen.abi import BACKEND_DOMID, NR_VIRQS, OWN_DOMID, Errno, Virq, is_self
from vmm.pv.xen.events import PORTS, Channel, EventChannels, Status
from vmm.pv.xen.guest import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

_PER_VCPU: Final = {Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU}
_WORD, _PAIR, _TRIPLE = Struct("<I"), Struct("<II"), Struct("<III")
_INTERDOMAIN: Final = Struct("<H2xII")
_STATUS: Final = Struct("<H2xI")
_ANSWER: Final = Struct("<IIII")
_UNBOUND: Final = Struct("<HHI")


class EventOp:
    """The operations by number; each returns Xen's result."""

    def __init__(self, events: EventChannels, vcpus: int) -> None:
        """Over the ports of a domain."""
        self._events: Final = events
        self._vcpus: Final = vcpus
        self._operations: Final[dict[int, Callable[[Caller, int], int]]] = {
            0: self._bind_interdomain, 1: self._bind_virq, 2: self._bind_pirq, 3: self._close,
            4: self._send, 5: self._status, 6: self._alloc_unbound, 7: self._bind_ipi,
            8: self._bind_vcpu, 9: self._unmask, 10: self._reset,
        }  # fmt: skip

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """Carry one out; FIFO events (11 to 13) are not offered."""
        operation = self._operations.get(arguments[0] & 0xFFFF_FFFF)
        return -Errno.NOSYS if operation is None else operation(cpu, arguments[1])

    def _channel(self, port: int) -> Channel | None:
        return self._events.channels.get(port) if 0 < port < PORTS else None

    def _bind_interdomain(self, cpu: Caller, at: int) -> int:
        domain, remote, _ = cpu.unpack(_INTERDOMAIN, at)
        if not is_self(domain):
            return -Errno.SRCH
        other = self._channel(remote)
        if other is None or other.status is not Status.UNBOUND or not is_self(other.domain):
            return -Errno.INVAL
        channel = Channel(Status.INTERDOMAIN, 0, OWN_DOMID, remote)
        port = self._events.allocate(channel)
        if not port:
            return -Errno.NOSPC
        other.status, other.domain, other.remote = Status.INTERDOMAIN, OWN_DOMID, port
        cpu.write(at + 8, _WORD.pack(port))
        self._events.notify(port)
        return 0

    def _bind_virq(self, cpu: Caller, at: int) -> int:
        virq, vcpu, _ = cpu.unpack(_TRIPLE, at)
        if virq >= NR_VIRQS or (virq not in _PER_VCPU and vcpu):
            return -Errno.INVAL
        if vcpu >= self._vcpus:
            return -Errno.NOENT
        bound = (c for c in self._events.channels.values() if c.status is Status.VIRQ)
        if any((c.virq, c.vcpu) == (virq, vcpu) for c in bound):
            return -Errno.EXIST
        return self._answer(cpu, at + 8, Channel(Status.VIRQ, vcpu, virq=virq))

    def _answer(self, cpu: Caller, at: int, channel: Channel) -> int:
        port = self._events.allocate(channel)
        if not port:
            return -Errno.NOSPC
        cpu.write(at, _WORD.pack(port))
        return 0

    def _bind_pirq(self, _cpu: Caller, _at: int) -> int:
        return -Errno.PERM

    def _close(self, cpu: Caller, at: int) -> int:
        (port,) = cpu.unpack(_WORD, at)
        channel = self._channel(port)
        if channel is None:
            return -Errno.INVAL
        other = self._channel(channel.remote) if channel.domain == OWN_DOMID else None
        if channel.status is Status.INTERDOMAIN and other is not None:
            other.status, other.remote = Status.UNBOUND, 0
        self._events.close(port)
        return 0

    def _send(self, cpu: Caller, at: int) -> int:
        (port,) = cpu.unpack(_WORD, at)
        channel = self._channel(port)
        if channel is None or channel.status in (Status.PIRQ, Status.VIRQ):
            return -Errno.INVAL
        self._events.send(port)
        return 0

    def _status(self, cpu: Caller, at: int) -> int:
        domain, port = cpu.unpack(_STATUS, at)
        if not is_self(domain):
            return -Errno.SRCH
        if not 0 <= port < PORTS:
            return -Errno.INVAL
        channel = self._channel(port) or Channel(Status.CLOSED)
        first, second = channel.domain, channel.remote
        if channel.status is Status.VIRQ:
            first, second = channel.virq, 0
        cpu.write(at + 8, _ANSWER.pack(channel.status, channel.vcpu, first, second))
        return 0

    def _alloc_unbound(self, cpu: Caller, at: int) -> int:
        domain, remote, _ = cpu.unpack(_UNBOUND, at)
        if not is_self(domain):
            return -Errno.PERM
        known = remote == BACKEND_DOMID or is_self(remote)
        if not known:
            return -Errno.SRCH
        peer = OWN_DOMID if is_self(remote) else BACKEND_DOMID
        return self._answer(cpu, at + 4, Channel(Status.UNBOUND, domain=peer))

    def _bind_ipi(self, cpu: Caller, at: int) -> int:
        vcpu, _ = cpu.unpack(_PAIR, at)
        if vcpu >= self._vcpus:
            return -Errno.NOENT
        return self._answer(cpu, at + 4, Channel(Status.IPI, vcpu))

    def _bind_vcpu(self, cpu: Caller, at: int) -> int:
        port, vcpu = cpu.unpack(_PAIR, at)
        channel = self._channel(port)
        if vcpu >= self._vcpus:
            return -Errno.NOENT
        per_vcpu = channel is not None and channel.status is Status.VIRQ
        if (
            channel is None
            or channel.status is Status.IPI
            or (per_vcpu and channel.virq in _PER_VCPU)
        ):
            return -Errno.INVAL
        channel.vcpu = vcpu
        return 0

    def _unmask(self, cpu: Caller, at: int) -> int:
        (port,) = cpu.unpack(_WORD, at)
        if self._channel(port) is None:
            return -Errno.INVAL
        self._events.unmask(port)
        return 0

    def _reset(self, cpu: Caller, at: int) -> int:
        (domain,) = Struct("<H").unpack(cpu.read(at, 2))
        if not is_self(domain):
            return -Errno.SRCH
        for port in list(self._events.channels):
            self._events.close(port)
        return 0
