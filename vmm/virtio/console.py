"""The console device (virtio 1.2, "Console Device"): ports, each a way for bytes to the host.

A console port becomes hvcN in a Linux guest, the others /dev/virtio-ports/NAME. What the host says
to a port waits until the guest has opened it and has buffers.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Final

from vmm.devices.device import State
from vmm.devices.saved import unpack_items
from vmm.host.channel import Channel
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.features import bits

CONTROL_RX, CONTROL_TX = 2, 3
QUEUE_SIZE: Final = 64
PORTS_MAX: Final = 31
WAITING_MAX: Final = 1 << 16  # bytes for a guest that does not read; then the host waits
CHUNK_MAX: Final = 1 << 16  # bytes of one request that are taken at once
PENDING_MAX: Final = 1024  # control messages for a driver without buffers
EMERGENCY: Final = 8  # offset of the emergency write register
_CONTROL: Final = Struct("<IHH")  # port, event, value


class ConsoleFeature(IntEnum):
    """Feature bits of the console device."""

    MULTIPORT = 1
    EMERG_WRITE = 2


class Event(IntEnum):
    """Control messages."""

    DEVICE_READY = 0
    PORT_ADD = 1
    PORT_READY = 3
    CONSOLE_PORT = 4
    PORT_OPEN = 6
    PORT_NAME = 7


@dataclass(slots=True)
class ConsolePort:
    """One port. `name` is for the guest; a console port gets a terminal driver there."""

    channel: Channel
    name: str = ""
    is_console: bool = False
    open: bool = False
    waiting: bytearray = field(default_factory=bytearray)


class Console(VirtioDevice):
    """Up to PORTS_MAX ports; the first is port 0, which works without multiport too."""

    device_id = 3

    def __init__(
        self, name: str, context: Context, ports: Sequence[ConsolePort], *, packed: bool = False
    ) -> None:
        """The caller binds each port's channel to `receive`, through a door."""
        assert 1 <= len(ports) <= PORTS_MAX
        super().__init__(
            name,
            context,
            queue_sizes=(QUEUE_SIZE,) * (2 * len(ports) + 2),
            features=bits(ConsoleFeature.MULTIPORT, ConsoleFeature.EMERG_WRITE),
            config=bytes(4) + len(ports).to_bytes(4, "little") + bytes(4),
            packed=packed,
        )
        self.ports: Final = list(ports)
        self._pending: deque[bytes] = deque()

    def receive(self, number: int, data: bytes) -> None:
        """Take bytes from the host for port `number`."""
        port = self.ports[number]
        port.waiting += data[: self.room(number)]
        self._fill(number)

    def room(self, number: int) -> int:
        """Return how many bytes port `number` can take from the host."""
        return WAITING_MAX - len(self.ports[number].waiting)

    def on_queue(self, index: int) -> None:
        """Buffers were added, bytes sent, or control messages exchanged."""
        if index == CONTROL_RX:
            self._tell()
        elif index == CONTROL_TX:
            self._listen()
        else:
            number = _port_of(index)
            if index & 1:
                self._drain(index, self.ports[number])
            else:
                self._fill(number)

    def on_reset(self) -> None:
        """The driver's view is gone; what the host said stays."""
        self._pending.clear()
        for port in self.ports:
            port.open = False

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Emergency write: a character without any queue, from the first moment of a guest."""
        if offset == EMERGENCY and size in (1, 2, 4):
            self.ports[0].channel.write(bytes([value & 0xFF]))

    def save_device(self) -> State:
        """Return ports and pending messages."""
        state: State = {
            "pending": b"".join(len(m).to_bytes(4, "little") + m for m in self._pending)
        }
        state["open"] = [int(port.open) for port in self.ports]
        for number, port in enumerate(self.ports):
            state[f"port{number}"] = bytes(port.waiting)
        return state

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned."""
        opened = state["open"]
        assert isinstance(opened, list)
        self._pending.clear()
        self._pending.extend(unpack_items(state["pending"]))
        for number, port in enumerate(self.ports):
            waiting = state[f"port{number}"]
            assert isinstance(waiting, bytes)
            port.open, port.waiting = bool(opened[number]), bytearray(waiting)

    # ---- bytes ----

    def _drain(self, index: int, port: ConsolePort) -> None:
        queue = self.queues[index]
        while self.live and (chain := queue.pop()):
            for at in range(0, min(chain.readable.size, WAITING_MAX), CHUNK_MAX):
                port.channel.write(chain.readable.read(at, CHUNK_MAX))
            queue.push(chain, 0)
        self.interrupt(queue)

    def _fill(self, number: int) -> None:
        port, queue = self.ports[number], self.queues[_receive_queue(number)]
        if not self.live or not self._listens(port):
            return
        gave = False
        while port.waiting and (chain := queue.pop()):
            done = chain.writable.write(0, bytes(port.waiting[: chain.writable.size]))
            del port.waiting[:done]
            queue.push(chain, done)
            gave = True
        if gave:
            self.interrupt(queue)

    def _listens(self, port: ConsolePort) -> bool:
        """Whether the guest wants the port's bytes; one that nobody opened throws them away."""
        return port.open or not self.has(ConsoleFeature.MULTIPORT)

    # ---- control messages ----

    def _listen(self) -> None:
        queue = self.queues[CONTROL_TX]
        while self.live and (chain := queue.pop()):
            message = chain.readable.read(0, _CONTROL.size)
            if len(message) < _CONTROL.size:
                self.fail(f"queue {CONTROL_TX}: a control message of {len(message)} bytes")
                return
            queue.push(chain, 0)
            self._obey(*_CONTROL.unpack(message))
        self.interrupt(queue)
        self._tell()

    def _obey(self, number: int, event: int, value: int) -> None:
        if event == Event.DEVICE_READY and value:
            for each in range(len(self.ports)):
                self._say(each, Event.PORT_ADD, 1)
        elif number >= len(self.ports):
            return
        elif event == Event.PORT_READY and value:
            self._introduce(number)
        elif event == Event.PORT_OPEN:
            self.ports[number].open = bool(value)
            self._fill(number)

    def _introduce(self, number: int) -> None:
        port = self.ports[number]
        if port.is_console:
            self._say(number, Event.CONSOLE_PORT, 1)
        if port.name:
            self._say(number, Event.PORT_NAME, 1, port.name.encode())
        self._say(number, Event.PORT_OPEN, 1)

    def _say(self, number: int, event: Event, value: int, extra: bytes = b"") -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending.append(_CONTROL.pack(number, event, value) + extra)

    def _tell(self) -> None:
        queue = self.queues[CONTROL_RX]
        told = False
        while self._pending and self.live and (chain := queue.pop()):
            queue.push(chain, chain.writable.write(0, self._pending.popleft()))
            told = True
        if told:
            self.interrupt(queue)


def _receive_queue(number: int) -> int:
    """Return the receive queue of a port: the control queues stand between ports 0 and 1."""
    return 0 if number == 0 else 2 * number + 2


def _port_of(index: int) -> int:
    """Return the port of a receive or transmit queue."""
    return 0 if index < CONTROL_RX else index // 2 - 1
