"""What came from the host comes again, at the very instruction; the host is not asked twice."""

import resource
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwmodel.timing.clock import Clock
from tests.images import OFF, elf64
from vmm import VM
from vmm.cli.main import main
from vmm.config import Config
from vmm.debug.driver import Driver, Goal
from vmm.debug.recording import Recorder, read_record, run_driven
from vmm.debug.session import Session
from vmm.errors import UsageError
from vmm.host.sources import Descriptor, HostSources
from vmm.host.tape import Entry, Kind, Tape
from vmm.net.backend import Abilities, Port
from vmm.net.taped import TapedBackend
from vmm.share.server import FuseServer
from vmm.share.taped import TapedServer

# Reads the serial port until 'q'; counts how often it looked, so that the moment shows in memory.
ECHO = f"""
    mov rsp, 0x300000
    mov dx, 0x3fd
look:
    inc qword ptr [0x200000]
    mov ecx, 2000
wait_a_bit:
    loop wait_a_bit
    in al, dx
    test al, 1
    jz look
    mov dx, 0x3f8
    in al, dx
    out dx, al
    mov rbx, [0x200000]
    imul r9, r9, 31
    add r9, rbx
    mov [0x200008], r9
    mov dx, 0x3fd
    cmp al, 0x71
    jne look
    {OFF}
"""


def typist(*keys: bytes) -> Callable[[], bytes]:
    """Type a key now and then, by how often the host was asked."""
    script = iter([part for key in keys for part in (b"", b"", key)])
    return lambda: next(script, b"")


def recorded(image: bytes, *keys: bytes, cpus: int = 1) -> tuple[list[object], Tape]:
    tape, said, keyboard = Tape(), bytearray(), typist(*keys)
    with VM(
        image, memory="4M", cpus=cpus, poll_input=keyboard, serial_output=said.extend, tape=tape
    ) as vm:
        driver, result = run_driven(vm)
        return [
            driver.now,
            result.digest(),
            result.exits,
            bytes(said),
            repr(vm.exits[-3:]),
        ], tape


def replayed(image: bytes, tape: Tape, cpus: int = 1) -> list[object]:
    said = bytearray()
    again = Tape(tape.entries, closed=True)
    with VM(image, memory="4M", cpus=cpus, serial_output=said.extend, tape=again) as vm:
        driver, result = run_driven(vm)
        return [driver.now, result.digest(), result.exits, bytes(said), repr(vm.exits[-3:])]


@pytest.mark.parametrize("cpus", [1, 4])
def test_keys_come_again_at_the_same_instruction(cpus: int) -> None:
    first, tape = recorded(elf64(ECHO), b"a", b"bc", b"\n", b"xq", cpus=cpus)
    assert first[3] == b"abc\nxq"
    assert [entry.kind for entry in tape.entries] == [Kind.INPUT] * 4
    assert replayed(elf64(ECHO), tape, cpus) == first
    other = [Entry(Kind.INPUT, tape.entries[0].at, "terminal", b"!!"), *tape.entries[1:]]
    with pytest.raises(UsageError, match="another than the recorded one"):
        replayed(elf64(ECHO), Tape(other), cpus)


def test_a_session_goes_back_over_what_was_typed() -> None:
    with VM(elf64(ECHO), memory="4M", poll_input=typist(b"a", b"b", b"q")) as vm:
        session = Session(vm, interval=1 << 18)
        end = session.resume().moment
        digest = vm.digest()
        session.break_on_exit("port=0x3f8 & write")
        letters = []
        while session.reverse_resume().vmexit is not None:
            letters.append(vm.regs.rax & 0xFF)
        assert bytes(letters) == b"qba"
        session.goto(end)
        assert vm.digest() == digest
        assert vm.console.text() == b"abq"


def test_another_image_is_noticed() -> None:
    _, tape = recorded(elf64(ECHO), b"a", b"q")
    with pytest.raises(UsageError, match="another than the recorded one"):
        replayed(elf64("nop; nop; nop\n" + ECHO.replace("2000", "1999")), tape)


def test_the_end_that_the_host_made_comes_again() -> None:
    tape = Tape()
    with VM(elf64(ECHO), memory="4M", poll_input=typist(), tape=tape) as vm:
        driver = Driver(vm)
        driver.advance(Goal(steps=100_000))
        vm.interrupt("timeout")
        driver.advance(Goal())
        first = driver.now, vm.digest(), vm.result and vm.result.message
    assert tape.entries[-1].kind is Kind.END
    with VM(elf64(ECHO), memory="4M", tape=Tape(tape.entries, closed=True)) as vm:
        driver, result = run_driven(vm)
        assert (driver.now, vm.digest(), result.message) == first


class Echoer:
    """Answers each frame at once, and once more when it is asked."""

    abilities = Abilities()

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.port: Port | None = None

    def plug_in(self, port: Port) -> None:
        self.port = port

    def send(self, frame: bytes) -> None:
        assert self.port is not None
        self.sent.append(frame)
        self.port.deliver(b"at once " + frame)

    def next_event(self) -> int | None:
        return None

    def fire(self) -> None: ...

    def poll(self) -> bool:
        assert self.port is not None
        self.port.deliver(b"later")
        return True

    def descriptors(self) -> Sequence[Descriptor]:
        return ()

    def expects(self) -> bool:
        return True

    def close(self) -> None: ...


def plugged(tape: Tape, inner: Echoer | None) -> tuple[TapedBackend, list[bytes], HostSources]:
    sources, came = HostSources(Clock(10**9, 7), tape), list[bytes]()
    taped = TapedBackend("net0", inner, sources, Abilities())
    taped.plug_in(Port(Clock(10**9, 7), sources.door("net0", came.append)))
    return taped, came, sources


def test_the_cable_carries_what_it_carried() -> None:
    tape, inner = Tape(), Echoer()
    taped, came, _ = plugged(tape, inner)
    taped.send(b"one")
    taped.poll()
    taped.send(b"two")
    assert came == [b"at once one", b"later", b"at once two"]
    again, came, sources = plugged(Tape(tape.entries, closed=True), None)
    again.send(b"one")
    assert sources.tape is not None
    assert sources.tape.take().data == b"later"
    again.send(b"two")
    assert came == [b"at once one", b"at once two"]


class Buffer:
    def __init__(self, size: int) -> None:
        self.data, self.size = bytearray(size), size

    def views(self, offset: int = 0, size: int | None = None) -> list[memoryview]:
        end = self.size if size is None else offset + size
        return [memoryview(self.data)[offset:end]]

    def wrote(self, offset: int = 0, size: int | None = None) -> None: ...


def test_files_are_as_they_were(tmp_path: Path) -> None:
    tape = Tape()
    sources = HostSources(Clock(10**9, 7), tape)
    inner = FuseServer(tmp_path, readonly=False, option="--share")
    server = TapedServer("fs0", inner, sources)
    init = bytes.fromhex("38000000 1a000000 0100000000000000 0000000000000000") + bytes(16)
    init += (7).to_bytes(4, "little") + (31).to_bytes(4, "little") + bytes(8)
    first = server.answer(init, Buffer(0), Buffer(0))
    server.close()
    assert first is not None
    again = TapedServer("fs0", None, HostSources(Clock(10**9, 7), Tape(tape.entries, closed=True)))
    assert again.answer(init, Buffer(0), Buffer(0)) == first


def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image, record = tmp_path / "guest.elf", tmp_path / "run.record"
    image.write_bytes(elf64("mov dx, 0x3f8; mov al, 65; out dx, al;" + OFF))
    words = ["--memory", "4M", "--stats", "json", str(image)]
    assert main(["run", "--record", str(record), *words]) == 0
    first = capfd.readouterr()
    assert main(["replay", str(record), "--stats", "json"]) == 0
    second = capfd.readouterr()
    assert first.out == second.out == "A"
    assert first.err.split('"digest"')[1] == second.err.split('"digest"')[1]
    verbs = tmp_path / "verbs"
    verbs.write_text("continue\nrstep\nconsole\n")
    assert main(["debug", "--commands", str(verbs), "--replay", str(record)]) == 0
    assert "the run is over" in capfd.readouterr().out
    whole = record.read_text()
    for text, words_of_it in (
        (whole[:-40], "truncated or damaged in line 2"),
        (whole.splitlines()[0] + "\n", "the end of its run is missing"),
        (whole[:200], "truncated in its first line"),
        (whole.replace('"version": 1', '"version": 2', 1), "version 2"),
        ("", "is no record file"),
    ):
        record.write_text(text)
        assert main(["replay", str(record)]) == 64
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert words_of_it in err
    record.write_text(whole)
    image.write_bytes(elf64("nop;" + OFF))
    assert main(["replay", str(record)]) == 64
    assert "is another file than in the recorded run" in capfd.readouterr().err
    assert read_record(record).end is not None


def test_a_disk_that_would_change_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, image = tmp_path / "disk.img", tmp_path / "guest.elf"
    disk.write_bytes(bytes(1 << 20))
    image.write_bytes(elf64(OFF))
    assert main(["run", "--record", str(tmp_path / "r"), "--disk", str(disk), str(image)]) == 64
    assert "add ,snapshot" in capsys.readouterr().err


def test_a_record_that_finds_no_room(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "guest.elf"
    image.write_bytes(elf64(OFF))
    assert main(["run", "--record", "/dev/full", str(image)]) == 64
    assert "no space left on device" in capfd.readouterr().err
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Recorder(tmp_path / "r", {}, Config.of(image=image))) as recorder:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "r").stat().st_size + 5, hard))
        try:
            recorder.tape.written(Entry(Kind.INPUT, (1, 1, 1), "serial", b"keys"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert recorder.failure == "file too large"


@pytest.mark.parametrize("timing", ["fast", "cycle"])
@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_a_driven_run_is_the_plain_one(images: Path, cpus: int, timing: str) -> None:
    """An exit that takes a turn beyond its end is the turn's last, whoever looks on."""
    options: dict[str, Any] = {"cpus": cpus, "memory": "16M", "cmdline": f"cpus={cpus}"}
    with VM(images / "smp.elf", timing=timing, **options) as vm:
        plain = vm.run()
        alone = plain.instructions, plain.cycles, plain.exits, plain.digest()
    with VM(images / "smp.elf", timing=timing, **options) as vm:
        _, result = run_driven(vm)
        assert (result.instructions, result.cycles, result.exits, result.digest()) == alone
