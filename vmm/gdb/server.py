"""Serves one gdb after another while the guest runs: `ring1 run --gdb [HOST:]PORT [--wait]`."""

import select
from collections import deque
from collections.abc import Callable
from typing import Final

from vmm.debug.session import Session
from vmm.debug.stop import Stop, StopKind
from vmm.debug.target import Target
from vmm.gdb.orders import Leave, Order
from vmm.gdb.packets import Decoder, Packet, Signal, frame
from vmm.gdb.stepping import Stepper
from vmm.gdb.stub import Stub
from vmm.host.sources import wait
from vmm.host.stream import Stream
from vmm.outcome import Result, StopReason

POLL_CYCLES: Final = 1 << 22
"""How often a guest that runs is left to look at the client: every millisecond or so."""
_PATIENCE: Final = 0.1  # seconds: how soon the end of the run from outside is seen
_BACKLOG: Final = 1 << 24  # bytes for a client that does not read; then it is dropped
_READS_MAX: Final = 64
_BUSY: Final = frame(b"E.another debugger is connected; detach it first")


class GdbServer:
    """The remote end of gdb for one session."""

    def __init__(
        self,
        session: Session,
        stream: Stream,
        *,
        has_monitor: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`stream` listens already; `say` tells the user of clients that come and go."""
        self.session: Final = session
        self.target: Final = Target(session)
        self._stream: Final = stream
        self._has_monitor: Final = has_monitor
        self._say: Final = say
        self._stepper: Final = Stepper(session, self._glance)
        self._stub: Stub | None = None
        self._decoder = Decoder()
        self._packets: Final[deque[Packet | Signal]] = deque()
        self._last_sent = b""
        self._wants_stop = False
        self._next_look = 0
        driver = session.driver
        self._look, self._looked = driver.look, driver.looked
        driver.look, driver.looked = self._next, self._around

    # ---- while the guest runs ----

    def _next(self) -> int:
        return min(self._look(), self._next_look)

    def _around(self) -> None:
        self._next_look = self.session.vm.clock.now + POLL_CYCLES
        self._looked()
        if self._glance():
            self.session.pause()

    def _glance(self) -> bool:
        """Take in what the client sent; whether the guest is to stop: asked, come or gone."""
        if self._stub is None:
            return self._stream.accept()
        self._receive()
        self._stream.turn_away(_BUSY)
        self._wants_stop |= not self._stream.has_peer
        return self._wants_stop

    def _receive(self) -> None:
        self._stream.flush()
        if len(self._stream.unsent) > _BACKLOG:
            self._stream.hang_up()
        for _ in range(_READS_MAX):  # to the end: only then does one see that the client has gone
            data = self._stream.receive()
            for item in self._decoder.feed(data):
                if item is Signal.INTERRUPT:
                    self._wants_stop = True
                self._packets.append(item)
            if not data:
                break

    # ---- the whole ----

    def run(self, *, waits: bool = False) -> Result:
        """Run to the end, whoever comes and goes; return how it ended.

        `waits`: nothing runs before the first client has come.
        """
        while waits and not self._stream.accept() and self.session.vm.interrupted is None:
            wait(_PATIENCE, self._stream.descriptors())
        while True:
            if self._stream.accept():
                self._say("gdb is connected")
                ended = self._converse()
                self._say("gdb has gone")
                self._stream.hang_up()
                if ended:
                    return self._end()
            if self._resume().kind is StopKind.ENDED:
                return self._end()

    def _resume(self) -> Stop:
        self._next_look = self.session.vm.clock.now + POLL_CYCLES
        return self.session.resume()

    def _end(self) -> Result:
        vm = self.session.vm
        if not vm.is_stopped():
            vm.stop(StopReason.INTERRUPTED, "ended by the debugger")
        result = vm.result
        assert result is not None
        return result

    # ---- one client ----

    def _converse(self) -> bool:
        """Serve the client until it goes; whether the run is to end with it."""
        self._stub = Stub(self.target, has_monitor=self._has_monitor)
        self._decoder, self._wants_stop = Decoder(), False
        self._packets.clear()
        self.target.physical = False
        try:
            return self._serve(self._stub)
        finally:
            self._stub.points.clear()
            self._stub = None

    def _serve(self, stub: Stub) -> bool:
        while True:
            self._receive()
            while self._packets:
                order = self._take(stub, self._packets.popleft())
                if isinstance(order, Leave):
                    self._flush()
                    return order.kills
                if order is not None and self._obey(stub, order):
                    return True
            if not self._stream.has_peer:
                return False
            if self.session.vm.interrupted is not None:
                self._resume()
                self._send(stub, b"X02")
                return True
            self._stream.turn_away(_BUSY)
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        wait(_PATIENCE, self._stream.descriptors())

    def _flush(self) -> None:
        """Send the rest, as far as the client takes it."""
        for _ in range(10):
            self._stream.flush()
            if not self._stream.unsent or not self._stream.has_peer:
                return
            wait(_PATIENCE, [(fd, select.POLLOUT) for fd, _ in self._stream.descriptors()])

    def _part(self) -> None:
        """Let the client hang up: closing with something unread would take back the last word."""
        self._flush()
        for _ in range(10):
            if not self._stream.has_peer:
                return
            self._wait_for_client()
            self._stream.receive()

    def _take(self, stub: Stub, item: Packet | Signal) -> Order | None:
        """Answer what came; an order is handed back."""
        if isinstance(item, Packet):
            if not stub.is_reliable:
                self._stream.send(b"+")
            answer = stub.handle(item.payload)
            if not isinstance(answer, bytes):
                if isinstance(answer, Leave) and item.payload[:1] in b"Dv":
                    self._send(stub, b"OK")
                return answer
            self._send(stub, answer)
        elif item is Signal.NACK and not stub.is_reliable:
            self._stream.send(self._last_sent)
        elif item is Signal.GARBLED:
            self._stream.send(frame(b"E.garbled packet") if stub.is_reliable else b"-")
        return None

    def _send(self, _stub: Stub, payload: bytes) -> None:
        self._last_sent = frame(payload)
        self._stream.send(self._last_sent)

    def _obey(self, stub: Stub, order: Order) -> bool:
        """Let the guest move; tell of its stop. Whether the client was told that it has ended."""
        assert not isinstance(order, Leave)
        vm = self.session.vm
        if vm.is_stopped() and not self.session.is_in_the_past and stub.moves_on(order):
            result = vm.result
            assert result is not None
            self._send(stub, stub.exit_reply(result.status))
            self._part()
            return True
        self._wants_stop = Signal.INTERRUPT in self._packets  # sent right behind the order
        if self._wants_stop:
            self.session.pause()
        self._next_look = vm.clock.now + POLL_CYCLES
        stop = self._stepper.carry_out(stub, order)
        stub.note_stop(stop)
        if text := stub.console_text(stop):
            self._send(stub, b"O" + text.encode().hex().encode())
        self._send(stub, stub.stop_reply(stop))
        return False
