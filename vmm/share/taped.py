"""A folder with a tape: a repeated run sees the files as they were, and writes none twice."""

from collections.abc import Mapping
from struct import Struct
from typing import Final

from vmm.devices.device import State
from vmm.host.sources import HostSources
from vmm.host.tape import ask
from vmm.share.request import Memory
from vmm.share.server import Server

_HEAD: Final = Struct("<?I")  # whether there is a reply, and its bytes; what follows fills the room


class TapedServer:
    """Between the device and the folder; None: there is only the tape."""

    def __init__(self, name: str, inner: Server | None, sources: HostSources) -> None:
        """Without a tape it is the folder itself."""
        self._name: Final = name
        self._inner: Final = inner
        self._sources: Final = sources

    def answer(self, head: bytes, data: Memory, room: Memory) -> tuple[bytes, int] | None:
        """Answer a request, or say what was answered."""
        tape, inner = self._sources.tape, self._inner
        if tape is None and inner is not None:
            return inner.answer(head, data, room)
        answered = ask(tape, self._name, lambda: self._ask(head, data, room))
        if not answered:
            return None
        replies, size = _HEAD.unpack_from(answered)
        reply, filled = answered[_HEAD.size : _HEAD.size + size], answered[_HEAD.size + size :]
        at = 0
        for view in room.views(0, len(filled)) if filled else ():
            view[:] = filled[at : at + len(view)]
            at += len(view)
        if filled:
            room.wrote(0, len(filled))
        return (reply, len(filled)) if replies else None

    def _ask(self, head: bytes, data: Memory, room: Memory) -> bytes:
        assert self._inner is not None
        answer = self._inner.answer(head, data, room)
        if answer is None:
            return _HEAD.pack(False, 0)
        reply, filled = answer
        content = b"".join(room.views(0, filled)) if filled else b""
        return _HEAD.pack(True, len(reply)) + reply + content

    def reset(self) -> None:
        """The driver is gone: close what it had open, unless that is the past."""
        tape = self._sources.tape
        if self._inner is not None and (tape is None or not tape.is_playing):
            self._inner.reset()

    def close(self) -> None:
        """Close everything."""
        if self._inner is not None:
            self._inner.close()

    def save(self) -> State:
        """With a tape the folder is where the run has been furthest, whatever is gone back to."""
        if self._sources.tape is not None or self._inner is None:
            return {}
        return self._inner.save()

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what save() returned."""
        if state and self._inner is not None and self._sources.tape is None:
            self._inner.restore(state)
