"""Event channels, two-level ABI (public/event_channel.h): a guest's interrupts.

A port is a bit in shared_info: pending, mask. What is not masked sets the selector bit of its word
and the pending byte in the vcpu_info of the vCPU that the port is bound to; the engine then makes
an upcall as soon as that vCPU's mask byte is clear.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

from vmm.pv.xen.abi import PAGE
from vmm.pv.xen.referee import Report, Rule, ignore
from vmm.pv.xen.shared import Shared

PORTS: Final = 4096
PENDING, MASK = 2048, 2560  # in struct shared_info
INFO_PENDING, INFO_MASK, INFO_SELECTOR = 0, 1, 8  # in struct vcpu_info
Listener = Callable[[], None]


class Status(IntEnum):
    """EVTCHNSTAT_*."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


@dataclass(slots=True)
class Channel:
    """A bound port. `remote` is the port at the other end, of `domain`; `virq` for a VIRQ."""

    status: Status
    vcpu: int = 0
    domain: int = 0
    remote: int = 0
    virq: int = 0


class Infos(Protocol):
    """Who knows where each vCPU's struct vcpu_info is."""

    def vcpu_info(self, vcpu: int) -> int:
        """Return its machine address."""


class EventChannels:
    """The ports of one domain. `wake` is told the vCPU that has an event."""

    def __init__(
        self, shared: Shared, engine: Infos, shared_info: int, wake: Callable[[int], None]
    ) -> None:
        """No port is bound; `shared_info` is the frame."""
        self._shared: Final = shared
        self._engine: Final = engine
        self._base: Final = shared_info * PAGE
        self._wake: Final = wake
        self.channels: dict[int, Channel] = {}
        self.listeners: dict[int, Listener] = {}
        """Back ends, by the guest's port: what a send there calls."""
        self.report: Report = ignore
        self._lost: set[int] = set()
        self.pollers: Callable[[int], list[int]] = lambda _port: []
        """The vCPUs that sleep until a port is pending."""

    def allocate(self, channel: Channel) -> int:
        """Bind the lowest free port; 0 if there is none."""
        port = next((n for n in range(1, PORTS) if n not in self.channels), 0)
        if port:
            self.channels[port] = channel
        return port

    def close(self, port: int) -> None:
        """Free a port; the bits go with it."""
        del self.channels[port]
        self.listeners.pop(port, None)
        self._shared.clear_bit(self._base + PENDING, port)

    def send(self, port: int) -> None:
        """The guest notifies the other end."""
        channel = self.channels[port]
        if channel.status is Status.IPI:
            self.notify(port)
        elif channel.status is Status.INTERDOMAIN:
            if listener := self.listeners.get(port):
                listener()
            elif channel.domain and channel.remote in self.channels:
                self.notify(channel.remote)

    def raise_virq(self, virq: int, vcpu: int) -> None:
        """Notify the port that a VIRQ of a vCPU is bound to, if any."""
        for port, channel in self.channels.items():
            if channel.status is Status.VIRQ and (channel.virq, channel.vcpu) == (virq, vcpu):
                self.notify(port)
                return

    def notify(self, port: int) -> None:
        """Make a port pending."""
        if port not in self.channels or self._shared.set_bit(self._base + PENDING, port):
            return
        if not self._shared.test_bit(self._base + MASK, port):
            self._mark(port)
        for vcpu in self.pollers(port):
            self._wake(vcpu)

    def _mark(self, port: int) -> None:
        vcpu = self.channels[port].vcpu
        info = self._engine.vcpu_info(vcpu)
        self._shared.set_bit(info + INFO_SELECTOR, port // 64)
        self._shared.write(info + INFO_PENDING, 1, 1)
        self._wake(vcpu)

    def unmask(self, port: int) -> None:
        """Clear the mask; what was pending meanwhile comes now."""
        self._shared.clear_bit(self._base + MASK, port)
        if self.is_pending(port):
            self._mark(port)

    def is_pending(self, port: int) -> bool:
        """Whether the guest has not yet taken it."""
        return self._shared.test_bit(self._base + PENDING, port)

    def has_upcall(self, vcpu: int) -> bool:
        """Whether an upcall would be made now."""
        info = self._engine.vcpu_info(vcpu)
        return bool(self._shared.read(info, 1)) and not self._shared.read(info + INFO_MASK, 1)

    def look_for_lost(self, vcpu: int) -> None:
        """A vCPU goes to sleep: report, once, what is pending for it and no upcall tells of."""
        waiting = self._bits(PENDING) & ~self._bits(MASK)
        lost = {p for p in self._lost if waiting >> p & 1 and not self._is_told(p)}
        while waiting:
            port = (waiting & -waiting).bit_length() - 1
            waiting &= waiting - 1
            channel = self.channels.get(port)
            if channel is None or channel.vcpu != vcpu or self._is_told(port):
                continue
            if port not in lost:
                self.report(Rule.LOST_EVENT, self._base + PENDING + port // 64 * 8, port)
            lost.add(port)
        self._lost = lost

    def _bits(self, at: int) -> int:
        return self._shared.read(self._base + at, PORTS // 8)

    def _is_told(self, port: int) -> bool:
        """Whether an upcall for it is due: both its word's selector bit and the pending byte."""
        if port not in self.channels:
            return True
        info = self._engine.vcpu_info(self.channels[port].vcpu)
        selected = self._shared.test_bit(info + INFO_SELECTOR, port // 64)
        return selected and bool(self._shared.read(info + INFO_PENDING, 1))

    def enable_upcalls(self, vcpu: int) -> None:
        """Clear a vCPU's upcall mask."""
        self._shared.write(self._engine.vcpu_info(vcpu) + INFO_MASK, 1, 0)

    def save(self) -> list[list[int]]:
        """Return every bound port."""
        return [
            [port, c.status, c.vcpu, c.domain, c.remote, c.virq]
            for port, c in sorted(self.channels.items())
        ]

    def restore(self, state: Any) -> None:
        """Take over what save() returned; back ends stay where their ports are."""
        self.channels = {port: Channel(Status(status), *rest) for port, status, *rest in state}
        self.listeners = {p: hook for p, hook in self.listeners.items() if p in self.channels}
