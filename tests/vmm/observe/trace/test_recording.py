"""The file of records: what ends a run does not take it away, and a full disk has an answer."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.cpu.recording import HEADER_BYTES, SEGMENT_BYTES
from tests.images import OFF, elf64
from tests.vmm.debug.test_session import WORK
from tests.vmm.observe.trace.traced import ONE_OF_EACH, record
from vmm.config import Config
from vmm.errors import UsageError
from vmm.observe.trace.header import MAGIC, Header, Place
from vmm.observe.trace.records import Enter, Leave, Told, Trace, opened
from vmm.trace_options import TraceFile, TraceKind

MANY = f"mov ebp, 20000; again: xor eax, eax; cpuid; dec ebp; jnz again; {OFF}"
FOR_EVER = "again: xor eax, eax; cpuid; jmp again"


def sequences(path: Path) -> list[int]:
    with opened(path) as trace:
        return [r.sequence for r in trace if isinstance(r, Leave) and not r.is_stop]


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_records_tell_what_the_exits_were(tmp_path: Path) -> None:
    result, _, said = record(ONE_OF_EACH, tmp_path / "t.ring")
    assert not said
    with opened(tmp_path / "t.ring") as trace:
        left = [r for r in trace if isinstance(r, Leave)]
        entered = [r for r in trace if isinstance(r, Enter)]
        told = [r for r in trace if isinstance(r, Told)]
    assert [r.sequence for r in left] == list(range(1, 12))
    assert left[-1].cycle == result.cycles - 1
    assert [r.rip for r in entered][:2] == [0x10_0000, 0x10_0004]
    assert entered[3].rax == 0x4000_0010  # CPUID's answer
    assert len(told) == 2 + 2 + 3 + 1 + 1


def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    from vmm import VM

    with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
        plain = vm.run()
        digest = plain.digest()
    with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
        from vmm.observe.trace.recording import RecordFile, Recording

        file = RecordFile(TraceFile.of(tmp_path / "t.ring"))
        recording = Recording(vm, file, lambda _: None)
        traced = vm.run()
        recording.stop()
        assert (traced.cycles, traced.exits) == (plain.cycles, plain.exits)
        assert traced.digest() == digest
        vm.board.ports.read(0x80, 1)  # the taps are gone: nothing is noted, nothing fails


def test_a_trace_does_not_tell_where_the_engine_was_stopped(tmp_path: Path) -> None:
    """Whoever waits for keys, or replays them, has the run stopped in other places."""
    from vmm import VM
    from vmm.observe.trace.recording import RecordFile, Recording

    for name, step in ("whole.ring", 1 << 40), ("pieces.ring", 777):
        with VM(elf64(WORK), memory="16M", timing="cycle") as vm:
            recording = Recording(vm, RecordFile(TraceFile.of(tmp_path / name)), lambda _: None)
            while vm.run_until(vm.clock.now + step) is None:
                pass
            recording.stop()
    with opened(tmp_path / "whole.ring") as trace:
        assert sum(isinstance(r, Leave) for r in trace) > 20
    assert (tmp_path / "whole.ring").read_bytes() == (tmp_path / "pieces.ring").read_bytes()


def test_a_ring_keeps_the_newest(tmp_path: Path) -> None:
    result, _, said = record(MANY, Path(f"{tmp_path}/t.ring,last=2M"))
    assert not said
    assert (tmp_path / "t.ring").stat().st_size == HEADER_BYTES + 2 * SEGMENT_BYTES
    found = sequences(tmp_path / "t.ring")
    last = sum(result.exits.values())
    assert found == list(range(found[0], last + 1))
    assert 2000 < len(found) < last
    with opened(tmp_path / "t.ring") as trace:
        assert trace.is_cut


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """The guest goes on, what there is is converted, and one line says what is missing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES + 3 * SEGMENT_BYTES, hard))
    try:
        result, _, said = record(MANY, tmp_path / "t.ring")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exits["CPUID"] == 20_000
    (line,) = said
    assert "file too large" in line
    assert "the guest went on" in line
    found = sequences(tmp_path / "t.ring")
    assert found == list(range(1, len(found) + 1))
    assert 3000 < len(found) < 20_000


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_no_room_for_the_trace_itself(tmp_path: Path) -> None:
    """The records are kept for later."""
    (tmp_path / "t.txt").symlink_to("/dev/full")
    _, _, said = record(ONE_OF_EACH, tmp_path / "t.txt")
    (line,) = said
    assert "no space left on device" in line
    assert "ring1 trace convert" in line
    kept = Path(line.split("ring1 trace convert ")[1].split()[0])
    assert len(sequences(kept)) == 11
    kept.unlink()


def test_not_even_a_first_segment(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES // 2, hard))
    try:
        with pytest.raises(UsageError, match="cannot be written: file too large; make room"):
            record(ONE_OF_EACH, tmp_path / "t.ring")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_what_ends_the_program_leaves_the_trace(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    image, target = tmp_path / "guest", tmp_path / "t.txt"
    image.write_bytes(elf64(FOR_EVER))
    command = [sys.executable, "-m", "vmm", "run", "--trace", f"{target},last=4M", str(image)]
    ring = tmp_path / "t.txt.ring"
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not (ring.exists() and ring.stat().st_size > HEADER_BYTES + SEGMENT_BYTES):
            assert run.poll() is None
            time.sleep(0.02)
        time.sleep(0.1)
        run.send_signal(number)
        assert run.wait(60) == status
    if number is signal.SIGKILL:
        assert len(sequences(ring)) > 50
        done = subprocess.run(
            [*command[:3], "trace", "convert", str(ring), str(target)], check=False
        )
        assert done.returncode == 0
    else:
        assert not ring.exists()
    assert target.read_text().count("kvm_exit: vcpu 0 reason CPUID") > 50


@pytest.mark.held_by("ept", "shadow", why="under trap software finds the triple fault")
def test_a_guest_that_crashes_leaves_its_trace(images: Path, tmp_path: Path) -> None:
    result, _, _ = record(images / "triple.elf", tmp_path / "t.txt", memory="64M")
    assert result.reason == "triple_fault"
    assert "reason TRIPLE_FAULT" in (tmp_path / "t.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("t.json", "no ending that says its form"),
        ("t", "no ending that says its form"),
        ("t.txt,last=", "last= is not a size"),
        ("t.txt,last=1K", "too little"),
        ("t.txt,last=-1", "is not a size"),
    ],
)
def test_bad_options(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        Config.of(image=b"", trace=text)
    assert "--trace" in str(error.value)


def test_good_options() -> None:
    assert TraceFile.of("a,b.perfetto,last=1G") == TraceFile(
        Path("a,b.perfetto"), TraceKind.PERFETTO, 1 << 30
    )


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: no such file or directory"):
        record(ONE_OF_EACH, tmp_path / "nowhere" / "t.txt")
    with pytest.raises(UsageError, match="cannot be written"):
        record(ONE_OF_EACH, Path("/dev/null/t.txt"))


def test_a_header_survives(tmp_path: Path) -> None:
    head = Header(
        2_500_000_000, 4, "vmlinux", virtio=("disk0",), places=(Place("port", 1, 2, "x"),)
    )
    assert Header.unpack(head.pack(), "t") == head
    many = tuple(Place("port", n, n, "a device with a long name") for n in range(200))
    assert Header.unpack(Header(1, 1, places=many).pack(), "t").places == ()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is not a trace of ring1"),
        (b"\x7fELF" + bytes(5000), "is not a trace of ring1"),
        (MAGIC + (99).to_bytes(4, "little") + bytes(5000), "a trace of version 99"),
        (Header(1, 1).pack()[:100], "is cut off within its header"),
        (MAGIC + (1).to_bytes(4, "little") + b"{]" + bytes(5000), "has a damaged header"),
    ],
)
def test_files_that_are_no_trace(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "t.ring"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=what), opened(path):
        pass


def test_a_trace_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    record(ONE_OF_EACH, tmp_path / "t.ring")
    whole = (tmp_path / "t.ring").read_bytes()
    counts = []
    for size in range(HEADER_BYTES, HEADER_BYTES + 6000, 500):
        (tmp_path / "t.ring").write_bytes(whole[:size])
        with opened(tmp_path / "t.ring") as trace:
            counts.append(sum(1 for _ in trace))
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 1 << 64))
def test_damaged_records_never_raise(data: bytes, used: int) -> None:
    from vmm.observe.trace.kvm_events import KvmEvents
    from vmm.observe.trace.timeline import Timeline

    head = Header(2_500_000_000, 1)
    segment = (1).to_bytes(8, "little") + (used % (1 << 64)).to_bytes(8, "little") + data
    trace = Trace(head, head.pack() + segment)
    assert len(list(trace)) <= len(data) // 40
    list(KvmEvents(trace))
    list(Timeline(trace))


def test_convert_refuses(tmp_path: Path) -> None:
    record(ONE_OF_EACH, tmp_path / "t.ring")
    for target, what in (
        ("x.ring", "records again"),
        ("x.bin", "no ending"),
        ("no/x.txt", "no such"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vmm", "trace", "convert", "t.ring", target],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        )  # fmt: skip
        assert done.returncode == 64
        assert what in done.stderr
        assert done.stderr.count("\n") == 1
