"""The entropy device (virtio 1.2, "Entropy Device"), and where its bytes come from."""

import hashlib
import os
from pathlib import Path
from typing import Final, Protocol

from vmm.devices.device import State
from vmm.errors import UsageError
from vmm.host.sources import HostSources
from vmm.host.tape import ask
from vmm.virtio.device import Context, VirtioDevice

QUEUE_SIZE: Final = 64
REQUEST_MAX: Final = 1 << 16  # bytes given for one request, which may ask for more


class Entropy(Protocol):
    """Where random bytes come from."""

    position: int
    """How many draws there were: the state of a source that has one."""

    def draw(self, size: int) -> bytes:
        """Return up to `size` bytes; none when the source has dried up."""

    def close(self) -> None:
        """Let go of everything on the host."""


class SeededEntropy:
    """The same bytes for the same seed: SHAKE-256 of the seed and the number of the draw."""

    def __init__(self, seed: int) -> None:
        """Any integer is a seed."""
        self._seed: Final = str(seed)
        self.position = 0

    def draw(self, size: int) -> bytes:
        """Return `size` bytes."""
        self.position += 1
        return hashlib.shake_256(f"ring1 {self._seed} {self.position}".encode()).digest(size)

    def close(self) -> None:
        """Nothing to let go of."""


class FileEntropy:
    """Bytes from a file of the host, such as /dev/urandom: then no run repeats another."""

    def __init__(self, path: Path, option: str) -> None:
        """Raises UsageError when the file cannot be read."""
        self.position = 0
        try:
            self._number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.read(self._number, 0)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{option} {str(path)!r} cannot be read: {words}; name /dev/urandom, or seed=N"
            ) from None

    def draw(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end of the file."""
        self.position += 1
        try:
            return os.read(self._number, size)
        except OSError:
            return b""

    def close(self) -> None:
        """Close the file."""
        if self._number >= 0:
            os.close(self._number)
        self._number = -1


class TapedEntropy:
    """A source with a tape; None: there is only the tape."""

    def __init__(self, inner: Entropy | None, sources: HostSources) -> None:
        """Without a tape it is the source itself."""
        self._inner: Final = inner
        self._sources: Final = sources
        self._position = 0

    @property
    def position(self) -> int:
        """How many draws there were."""
        return self._inner.position if self._inner is not None else self._position

    @position.setter
    def position(self, value: int) -> None:
        if self._inner is not None:
            self._inner.position = value
        self._position = value

    def draw(self, size: int) -> bytes:
        """Return what was drawn here, or draw."""
        self._position += 1
        return ask(
            self._sources.tape, "rng", lambda: self._inner.draw(size) if self._inner else b""
        )

    def close(self) -> None:
        """Let go of everything on the host."""
        if self._inner is not None:
            self._inner.close()


class Rng(VirtioDevice):
    """An entropy source."""

    device_id = 4

    def __init__(
        self, name: str, context: Context, entropy: Entropy, *, packed: bool = False
    ) -> None:
        """The entropy belongs to the device from now on."""
        super().__init__(name, context, queue_sizes=(QUEUE_SIZE,), packed=packed)
        self.entropy: Final = entropy

    def on_queue(self, index: int) -> None:
        """Fill what is there, until the source has dried up."""
        queue = self.queues[index]
        while self.live and (chain := queue.pop()):
            size = min(chain.writable.size, REQUEST_MAX)
            data = self.entropy.draw(size)
            if size and not data:
                queue.unpop(chain)
                break
            queue.push(chain, chain.writable.write(0, data))
        self.interrupt(queue)

    def save_device(self) -> State:
        """Return how far the source has been drawn."""
        return {"position": self.entropy.position}

    def restore_device(self, state: State) -> None:
        """Go on from there."""
        position = state["position"]
        assert isinstance(position, int)
        self.entropy.position = position
