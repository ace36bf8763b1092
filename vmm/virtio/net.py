"""The network device (virtio 1.2, "Network Device"): frames between a driver and a backend.

Frames for the guest wait here until the modelled latency is over and the driver has buffers; what
arrives meanwhile goes with the same interrupt. Frames of the guest go out at once; their buffers go
back together a while later, so that a guest collects what it writes in small pieces meanwhile. A
frame with a partial checksum is completed here; a TCP segment larger than the MTU is offered only
where the backend takes it whole.
"""

from collections import deque
from enum import IntEnum
from typing import Final

from vmm.devices.device import State
from vmm.devices.saved import pack_items, unpack_items
from vmm.net.backend import FRAME_MAX, FRAME_MIN, Backend
from vmm.virtio.chain import Chain
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.features import bits
from vmm.virtio.net_filter import Filter
from vmm.virtio.net_header import (
    DATA_VALID,
    HEADER,
    NEEDS_CSUM,
    Gso,
    Header,
    received,
    with_checksum,
)

RX, TX, CONTROL = 0, 1, 2
QUEUE_SIZES: Final = (256, 256, 64)
WAITING_MAX: Final = 1024  # frames for a driver without buffers; what comes then is dropped
DEFAULT_MTU: Final = 1500
RX_NS: Final = 20_000  # from the wire to the interrupt; a vhost path takes 15 to 30 us
TX_NS: Final = 150_000  # from sending to giving buffers back: QEMU's x-txtimer (hw/net/virtio-net)
CONTROL_MAX: Final = 2 + 2 * (4 + 6 * 4096)  # bytes of a control command that are looked at
LINK_UP: Final = 1
NEVER: Final = 1 << 62
OK, ERROR = b"\0", b"\1"


class NetFeature(IntEnum):
    """Feature bits of the network device."""

    CSUM = 0
    GUEST_CSUM = 1
    MTU = 3
    MAC = 5
    HOST_TSO4 = 11
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_RX_EXTRA = 20
    CTRL_MAC_ADDR = 23


class Net(VirtioDevice):
    """A network card with one receive, one transmit and one control queue."""

    device_id = 1

    def __init__(
        self,
        name: str,
        context: Context,
        backend: Backend,
        *,
        mac: bytes,
        mtu: int = DEFAULT_MTU,
        rx_ns: int = RX_NS,
        tx_ns: int = TX_NS,
        packed: bool = False,
    ) -> None:
        """`mac` is 6 bytes; the caller plugs `receive` into the backend.

        `rx_ns` and `tx_ns` are how long received frames and sent buffers may be collected.
        """
        super().__init__(
            name,
            context,
            queue_sizes=QUEUE_SIZES,
            features=_features(backend, mtu),
            config=mac + b"".join(n.to_bytes(2, "little") for n in (LINK_UP, 1, mtu)),
            packed=packed,
        )
        self.backend: Final = backend
        self.filter: Final = Filter(mac)
        self.dropped = 0  # frames that found no room, or made no sense
        self._rx_ns: Final = rx_ns
        self._tx_ns: Final = tx_ns
        self._waiting: deque[bytes] = deque()
        self._sent: list[Chain] = []
        self._rx_due = self._tx_due = NEVER

    def receive(self, frame: bytes) -> None:
        """Take a frame from the wire."""
        if not self.live or not FRAME_MIN <= len(frame) <= FRAME_MAX:
            return
        if not self.filter.takes(frame):
            return
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        self._waiting.append(frame)
        if self._rx_due == NEVER:
            self._rx_due = self.context.clock.now + self.context.clock.cycles_of_ns(self._rx_ns)
            self.rescheduled()

    def on_queue(self, index: int) -> None:
        """Receive buffers were added, or there is something to send or to obey."""
        if index == RX:
            if self._rx_due == NEVER:
                self._fill()
        elif index == TX:
            self._send_all()
        else:
            self._obey()

    def on_reset(self) -> None:
        """Forget waiting frames and the filter."""
        self._waiting.clear()
        self._sent.clear()
        self._rx_due = self._tx_due = NEVER
        self.filter.reset()
        self.config[:6] = self.filter.mac

    def on_queue_reset(self, index: int) -> None:
        """The driver has its buffers back."""
        if index == TX:
            self._sent.clear()
            self._tx_due = NEVER

    def next_event(self) -> int | None:
        """Return when frames or buffers reach the driver, or the backend has something due."""
        own = min(self._rx_due, self._tx_due)
        event = self.backend.next_event()
        if event is not None and event < own:
            return event
        return own if own < NEVER else None

    def fire(self) -> None:
        """Do what is due."""
        event, now = self.backend.next_event(), self.context.clock.now
        if event is not None and event <= now:
            self.backend.fire()
        if self._rx_due <= now:
            self._rx_due = NEVER
            self._fill()
        if self._tx_due <= now:
            self._give_back()

    def save_device(self) -> State:
        """Return waiting frames and the filter; what the backend holds is outside the machine."""
        return {
            "waiting": pack_items(self._waiting),
            "sent": [n for chain in self._sent for n in (len(chain.save()), *chain.save())],
            "due": [self._rx_due, self._tx_due],
        } | {f"filter_{name}": value for name, value in self.filter.save().items()}

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned."""
        due, sent = state["due"], state["sent"]
        assert isinstance(due, list)
        assert isinstance(sent, list)
        self._waiting.clear()
        self._waiting.extend(unpack_items(state["waiting"]))
        self._rx_due, self._tx_due = due
        self._sent.clear()
        at = 0
        while at < len(sent):
            end = at + 1 + sent[at]
            self._sent.append(self.queues[TX].restore_chain(sent[at + 1 : end]))
            at = end
        own = {k.removeprefix("filter_"): v for k, v in state.items() if k.startswith("filter_")}
        self.filter.restore(own)

    # ---- to the guest ----

    def _fill(self) -> None:
        """Give waiting frames to the driver while it has buffers."""
        queue = self.queues[RX]
        gave = False
        while self._waiting and self.live:
            chains = self._room(len(self._waiting[0]))
            if not chains:
                break
            self._store(self._waiting.popleft(), chains)
            gave = True
        if gave:
            self.interrupt(queue)

    def _room(self, size: int) -> list[Chain]:
        """Pop buffers for a frame of `size` bytes: none if there are not enough of them yet."""
        queue, left, chains = self.queues[RX], HEADER.size + size, list[Chain]()
        while left > 0:
            chain = queue.pop()
            if chain is None:
                for taken in reversed(chains):
                    queue.unpop(taken)
                if len(chains) == queue.size:
                    self.fail(f"queue {RX}: all its buffers do not hold {size} bytes")
                return []
            chains.append(chain)
            left -= chain.writable.size
            if chain.writable.size < HEADER.size:
                self.fail(f"queue {RX}: a buffer of {chain.writable.size} bytes")
                return []
            if not self.has(NetFeature.MRG_RXBUF):
                break
        return chains

    def _store(self, frame: bytes, chains: list[Chain]) -> None:
        """Write a frame into buffers that are large enough, or drop it if the only one is not."""
        trusted = self.has(NetFeature.GUEST_CSUM) and self.backend.abilities.trusted
        data = received(DATA_VALID if trusted else 0, len(chains)) + frame
        if len(data) > sum(chain.writable.size for chain in chains):
            self.dropped += 1
            self.queues[RX].unpop(chains[0])
            return
        rest = memoryview(data)
        for chain in chains:
            done = chain.writable.write(0, rest[: chain.writable.size])
            self.queues[RX].push(chain, done)
            rest = rest[done:]

    # ---- from the guest ----

    def _send_all(self) -> None:
        queue = self.queues[TX]
        while self.live and (chain := queue.pop()):
            self._send(chain)
            self._sent.append(chain)
        if self._sent and self._tx_due == NEVER:
            self._tx_due = self.context.clock.now + self.context.clock.cycles_of_ns(self._tx_ns)
            if not self._tx_ns:
                self._give_back()

    def _give_back(self) -> None:
        """Give the buffers of what was sent back to the driver."""
        queue, self._tx_due = self.queues[TX], NEVER
        for chain in self._sent:
            queue.push(chain, 0)
        self._sent.clear()
        self.interrupt(queue)

    def _send(self, chain: Chain) -> None:
        header = Header.of(chain.readable)
        if header is None:
            self.fail(f"queue {TX}: a frame of {chain.readable.size} bytes with its header")
            return
        size = chain.readable.size - HEADER.size
        if FRAME_MIN <= size <= FRAME_MAX and self._may_send(header):
            frame: bytes | None = chain.readable.read(HEADER.size)
            if header.flags & NEEDS_CSUM and frame is not None:
                frame = with_checksum(frame, header.start, header.offset)
            if frame is not None:
                self.backend.send(frame)
                return
        self.dropped += 1

    def _may_send(self, header: Header) -> bool:
        """Whether the driver negotiated what this frame's header asks for."""
        if header.flags & NEEDS_CSUM and not self.has(NetFeature.CSUM):
            return False
        if header.gso == Gso.NONE:
            return True
        return header.gso == Gso.TCPV4 and self.has(NetFeature.HOST_TSO4)

    def _obey(self) -> None:
        queue = self.queues[CONTROL]
        while self.live and (chain := queue.pop()):
            done = self.filter.command(chain.readable.read(0, CONTROL_MAX))
            self.config[:6] = self.filter.mac
            queue.push(chain, chain.writable.write(0, OK if done else ERROR))
        self.interrupt(queue)


def _features(backend: Backend, mtu: int) -> int:
    offered = bits(
        NetFeature.CSUM, NetFeature.GUEST_CSUM, NetFeature.MAC, NetFeature.MRG_RXBUF,
        NetFeature.STATUS, NetFeature.CTRL_VQ, NetFeature.CTRL_RX, NetFeature.CTRL_RX_EXTRA,
        NetFeature.CTRL_MAC_ADDR,
    )  # fmt: skip
    if backend.abilities.segments:
        offered |= bits(NetFeature.HOST_TSO4)
    return offered | (bits(NetFeature.MTU) if mtu != DEFAULT_MTU else 0)
