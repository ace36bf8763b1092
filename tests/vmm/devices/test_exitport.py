import pytest

from vmm.devices.debugcon import DebugConsole
from vmm.devices.exitport import ExitPort, ShutdownPort


@pytest.mark.parametrize(("size", "seen"), [(1, 0x78), (2, 0x5678), (4, 0x12345678)])
def test_exit_port_takes_each_size(size: int, seen: int) -> None:
    values: list[int] = []
    ExitPort(values.append).write(0, size, 0x12345678)
    assert values == [seen]


@pytest.mark.parametrize(
    ("letters", "times"),
    [
        (b"Shutdown", 1),
        (b"ShutShutdown", 1),
        (b"SShutdown", 1),
        (b"Shutdow", 0),
        (b"shutdown", 0),
        (b"Shut down", 0),
        (b"ShutdownShutdown", 2),
    ],
)
def test_shutdown_needs_the_whole_word(letters: bytes, times: int) -> None:
    offs: list[None] = []
    port = ShutdownPort(lambda: offs.append(None))
    for letter in letters:
        port.write(0, 1, letter)
    assert len(offs) == times


def test_shutdown_survives_a_save_in_the_middle() -> None:
    offs: list[None] = []
    first = ShutdownPort(lambda: None)
    for letter in b"Shut":
        first.write(0, 1, letter)
    second = ShutdownPort(lambda: offs.append(None))
    second.restore(first.save())
    for letter in b"down":
        second.write(0, 1, letter)
    assert len(offs) == 1


def test_debug_console_shows_bytes_and_is_found() -> None:
    out = bytearray()
    console = DebugConsole(out.extend)
    for letter in b"hi":
        console.write(0, 1, letter)
    assert out == b"hi"
    assert console.read(0, 1) == 0xE9
