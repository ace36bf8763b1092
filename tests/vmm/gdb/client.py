"""A client of the remote protocol, to speak with a server that runs in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmm import VM
from vmm.debug.session import Session
from vmm.gdb.packets import Decoder, Packet, Signal, frame
from vmm.gdb.server import GdbServer
from vmm.host.endpoint import Endpoint
from vmm.host.stream import Stream

PATIENCE = 60.0


class Client:
    """Sends packets, returns answers; acknowledges unless told otherwise."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.decoder = Decoder(1 << 20)
        self.items: list[Packet | Signal] = []
        self.acknowledges = True
        self.console = ""

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def item(self) -> Packet | Signal:
        """The next packet or sign."""
        while not self.items:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.items += self.decoder.feed(data)
        return self.items.pop(0)

    def answer(self) -> bytes:
        """The next packet that is no console output, acknowledged."""
        while True:
            item = self.item()
            if not isinstance(item, Packet):
                continue
            if self.acknowledges:
                self.raw(b"+")
            if item.payload[:1] == b"O" and item.payload != b"OK":
                self.console += bytes.fromhex(item.payload[1:].decode()).decode()
                continue
            return item.payload

    def ask(self, payload: bytes | str) -> bytes:
        """Send a packet; return the answer."""
        self.raw(frame(payload.encode() if isinstance(payload, str) else payload))
        return self.answer()

    def monitor(self, line: str) -> str:
        """Say `monitor LINE`; return what it prints."""
        answer = self.ask("qRcmd," + line.encode().hex())
        return "" if answer == b"OK" else bytes.fromhex(answer.decode()).decode()

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}").decode()), "little")

    def close(self) -> None:
        self.socket.close()


class Served:
    """A VM under a server in its own thread; `result` is there when the run is over."""

    def __init__(self, vm: VM, **options: Any) -> None:
        self.vm = vm
        self.stream = Stream.listening(Endpoint("127.0.0.1", 0), "--gdb")
        self.port = self.stream.address.port
        self.session = Session(vm)
        self.server = GdbServer(self.session, self.stream, **options)
        self.result: Any = None
        self.error: BaseException | None = None
        self.clients: list[Client] = []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.result = self.server.run(waits=True)
        except BaseException as error:
            self.error = error

    def client(self) -> Client:
        """Connect one more; it is closed with the block."""
        self.clients.append(Client(self.port))
        return self.clients[-1]

    def join(self) -> Any:
        """Wait for the end of the run; return its result."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the server does not come to an end"
        if self.error is not None:
            raise self.error
        return self.result


@contextmanager
def served(image: Path | bytes, *, server: Any = None, **options: Any) -> Iterator[Served]:
    """Serve an image; the run is ended with the block."""
    given = {"memory": "4M", **options}
    with VM(image, **given) as vm:
        one = Served(vm, **(server or {}))
        one.thread.start()
        try:
            yield one
        finally:
            vm.interrupt()
            one.thread.join(PATIENCE)
            one.stream.close()
            for client in one.clients:
                client.close()
            assert not one.thread.is_alive()
        if one.error is not None:
            raise one.error
