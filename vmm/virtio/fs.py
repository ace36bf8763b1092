"""The file system device (virtio 1.2, "File System Device"): FUSE requests over virtqueues.

    guest# mount -t virtiofs TAG /mnt

Requests are carried out when they are notified, and their replies given back when the modelled
latency is over.
"""

from collections import deque
from typing import Final

from vmm.devices.device import State
from vmm.errors import UsageError
from vmm.share.fuse import HEADER_IN, HEADER_OUT, WRITE_IN
from vmm.share.server import BODY_MAX, Server
from vmm.virtio.chain import Chain
from vmm.virtio.device import Context, VirtioDevice

URGENT, REQUESTS = 0, 1
QUEUE_SIZE: Final = 128
TAG_SIZE: Final = 36
LATENCY_NS: Final = 20_000  # as a round trip to a daemon on the same host takes


class Fs(VirtioDevice):
    """A shared folder."""

    device_id = 26

    def __init__(
        self,
        name: str,
        context: Context,
        server: Server,
        tag: str,
        *,
        latency_ns: int = LATENCY_NS,
        packed: bool = False,
    ) -> None:
        """`tag` is the name by which the guest mounts it, at most 36 bytes."""
        super().__init__(
            name,
            context,
            queue_sizes=(QUEUE_SIZE, QUEUE_SIZE),
            config=check_tag(tag).ljust(TAG_SIZE, b"\0") + (1).to_bytes(4, "little"),
            packed=packed,
        )
        self.server: Final = server
        self._latency_ns: Final = latency_ns
        self._done: deque[tuple[int, int, int, Chain]] = deque()  # due, queue, written, chain

    def on_queue(self, index: int) -> None:
        """Carry out what is there."""
        due = self.context.clock.now + self.context.clock.cycles_of_ns(self._latency_ns)
        while self.live and (chain := self.queues[index].pop()):
            self._done.append((due, index, self._serve(chain), chain))
        if not self._latency_ns:
            self.fire()

    def next_event(self) -> int | None:
        """Return when the next reply is given."""
        return self._done[0][0] if self._done else None

    def fire(self) -> None:
        """Give the replies that are due."""
        now, served = self.context.clock.now, set()
        while self._done and self._done[0][0] <= now:
            _, index, written, chain = self._done.popleft()
            self.queues[index].push(chain, written)
            served.add(index)
        for index in sorted(served):
            self.interrupt(self.queues[index])

    def on_reset(self) -> None:
        """Forget replies under way, and close the guest's files."""
        self._done.clear()
        self.server.reset()

    def on_queue_reset(self, index: int) -> None:
        """Forget the replies of one queue."""
        kept = [item for item in self._done if item[1] != index]
        self._done.clear()
        self._done.extend(kept)

    def save_device(self) -> State:
        """Return replies under way and what the guest has open."""
        flat = [
            number
            for due, index, written, chain in self._done
            for number in (due, index, written, len(chain.save()), *chain.save())
        ]
        own = {f"server_{name}": value for name, value in self.server.save().items()}
        return {"done": flat, **own}

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned."""
        flat = state["done"]
        assert isinstance(flat, list)
        self._done.clear()
        at = 0
        while at < len(flat):
            due, index, written, length = flat[at : at + 4]
            chain = self.queues[index].restore_chain(flat[at + 4 : at + 4 + length])
            self._done.append((due, index, written, chain))
            at += 4 + length
        own = {k.removeprefix("server_"): v for k, v in state.items() if k.startswith("server_")}
        self.server.restore(own)

    def _serve(self, chain: Chain) -> int:
        """Answer one request; return the bytes written to the guest."""
        readable, writable = chain.readable, chain.writable
        answer = self.server.answer(
            readable.read(0, BODY_MAX),
            readable.cut(HEADER_IN.size + WRITE_IN.size),
            writable.cut(HEADER_OUT.size),
        )
        if answer is None:
            return 0
        reply, filled = answer
        if len(reply) + filled > writable.size:
            reply = _no_room(reply)
        return writable.write(0, reply) + filled


def check_tag(tag: str) -> bytes:
    """Return a tag as bytes. Raises UsageError if it does not fit."""
    data = tag.encode()
    if not data or len(data) > TAG_SIZE or b"\0" in data:
        raise UsageError(f"--share tag={tag!r} is no tag; give 1 to {TAG_SIZE} bytes")
    return data


def _no_room(reply: bytes) -> bytes:
    """Return the reply's header alone, saying that the answer does not fit: -EIO."""
    unique = HEADER_OUT.unpack_from(reply)[2]
    return HEADER_OUT.pack(HEADER_OUT.size, -5, unique)
