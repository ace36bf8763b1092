"""Host input: polled, waited for, and written down with its cycle."""

import os
import select

from hwmodel.timing.clock import Clock
from vmm.host.sources import HostSources, Input, InputLog, wait


class Pipe:
    """A source that hands on what is written to its pipe."""

    def __init__(self, sources: HostSources, heard: list[bytes]) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)
        self.door = sources.door("pipe", heard.append)
        self.closed = False

    def poll(self) -> bool:
        try:
            data = os.read(self.read, 100)
        except BlockingIOError:
            return False
        self.door(data)
        return True

    def descriptors(self) -> list[tuple[int, int]]:
        return [(self.read, select.POLLIN)]

    def expects(self) -> bool:
        return False

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)
        self.closed = True


def test_input_goes_through_the_door_and_is_written_down() -> None:
    clock, heard = Clock(), list[bytes]()
    sources = HostSources(clock)
    assert not sources
    pipe = Pipe(sources, heard)
    sources.add(pipe)
    assert sources
    assert not sources.poll()
    assert not wait(0.001, sources.descriptors())
    os.write(pipe.write, b"before the log")
    assert wait(5, sources.descriptors())
    assert sources.poll()
    sources.log = InputLog()
    clock.now = 77
    os.write(pipe.write, b"typed")
    assert sources.poll()
    assert heard == [b"before the log", b"typed"]
    assert sources.log.entries == [Input(77, "pipe", b"typed")]
    sources.close()
    assert pipe.closed
    assert sources.descriptors() == []
