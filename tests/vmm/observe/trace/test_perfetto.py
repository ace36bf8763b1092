"""The Perfetto trace, read back with Perfetto's own messages, and held against the ledger."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from tests.images import elf64
from tests.vmm.observe.trace.traced import ONE_OF_EACH, record

NS_A_CYCLE = 0.4  # at 2.5 GHz


class Slices:
    """What a viewer makes of the packets: slices with their own time, flows, counters."""

    def __init__(self, path: Path) -> None:
        self.trace = Trace()
        self.trace.ParseFromString(path.read_bytes())
        self.tracks: dict[int, Any] = {}
        self.names: dict[int, str] = {}
        self.keys: dict[int, str] = {}
        self.own: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self.departs: dict[int, tuple[str, str]] = {}
        self.arrives: dict[int, tuple[str, str]] = {}
        self.counters: dict[str, list[int]] = {}
        self._stacks: dict[int, list[tuple[str, int, int]]] = {}
        self._last: dict[int, int] = {}
        for packet in self.trace.packet:
            self._take(packet)
        assert not any(self._stacks.values()), "a slice was not ended"

    def _take(self, packet: Any) -> None:
        for name in packet.interned_data.event_names:
            self.names[name.iid] = name.name
        for name in packet.interned_data.debug_annotation_names:
            self.keys[name.iid] = name.name
        if packet.HasField("track_descriptor"):
            self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        elif packet.HasField("track_event"):
            self._event(packet.track_event, packet.timestamp)

    def _event(self, event: Any, at: int) -> None:
        track = event.track_uuid
        assert track in self.tracks, "an event on a track that was not described"
        assert at >= self._last.get(track, 0), "time goes backwards on a track"
        self._last[track] = at
        stack = self._stacks.setdefault(track, [])
        if event.type == TrackEvent.TYPE_SLICE_END:
            name, began, inside = stack.pop()
            self.own[name] += at - began - inside
            if stack:
                outer, since, other = stack.pop()
                stack.append((outer, since, other + at - began))
            return
        if event.type == TrackEvent.TYPE_COUNTER:
            self.counters.setdefault(self.name_of(track), []).append(event.counter_value)
            return
        name = self.names[event.name_iid]
        self.count[name] += 1
        for flow in event.flow_ids:
            self.departs[flow] = (self.name_of(track), name)
        for flow in event.terminating_flow_ids:
            self.arrives[flow] = (self.name_of(track), name)
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append((name, at, 0))

    def name_of(self, track: int) -> str:
        descriptor = self.tracks[track]
        return str(descriptor.name or descriptor.thread.thread_name)

    def flows(self) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        for flow, departs in self.departs.items():
            if flow in self.arrives:
                yield departs, self.arrives[flow]


def assert_sums(slices: Slices, ledger: Any) -> None:
    """Own time of slices by name is the ledger by heading; each rounding loses a nanosecond."""
    devices = sum(time for name, time in slices.own.items() if name.startswith("device:"))
    found = {
        "guest": slices.own["guest"], "walk": slices.own["walk"], "exit": slices.own["exit"],
        "entry": slices.own["entry"], "hypervisor": slices.own["handler"], "device": devices,
        "injection": slices.own["injection"], "idle": slices.own["idle"],
    }  # fmt: skip
    slack = sum(slices.count.values())
    for heading, ns in found.items():
        assert ns == pytest.approx(ledger[heading] * NS_A_CYCLE, abs=slack), heading


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_slices_sum_to_the_ledger(tmp_path: Path) -> None:
    _, ledger, _ = record(ONE_OF_EACH, tmp_path / "t.perfetto")
    slices = Slices(tmp_path / "t.perfetto")
    assert_sums(slices, ledger)
    assert slices.count["EXIT:IO_INSTRUCTION"] == ledger.exits["IO_INSTRUCTION"].count == 4
    assert slices.count["device:post"] == 4  # once, and three times by one instruction
    assert slices.count["device:lapic"] == 2
    assert slices.counters["VM exits"] == list(range(1, 12))
    assert slices.counters["page walks"] == sorted(slices.counters["page walks"])


def test_tracks(tmp_path: Path) -> None:
    record(ONE_OF_EACH, tmp_path / "t.perfetto", cpus=2)
    slices = Slices(tmp_path / "t.perfetto")
    tracks = {slices.name_of(uuid): track for uuid, track in slices.tracks.items()}
    group = tracks["Hypervisor"].uuid
    assert tracks["pCPU 0"].parent_uuid == tracks["VM exits"].parent_uuid == group
    threads = [tracks[name].thread for name in ("vCPU 0", "vCPU 1")]
    assert [thread.tid - thread.pid for thread in threads] == [1, 2]


@pytest.mark.parametrize("timing", ["fast", "cycle"])
def test_interrupts_flow_between_processors(images: Path, tmp_path: Path, timing: str) -> None:
    options: dict[str, Any] = {"memory": "64M", "cpus": 2, "timing": timing}
    try:
        _, ledger, _ = record(images / "kvm_smp.elf", tmp_path / "t.perfetto", **options)
    except Exception as error:
        if "not built" in str(error):
            pytest.skip(str(error))
        raise
    slices = Slices(tmp_path / "t.perfetto")
    assert_sums(slices, ledger)
    assert slices.own["halted"] > 0
    flows = set(slices.flows())
    assert any(
        start == "vCPU 0" and end == "vCPU 1" and name.startswith("inject ")
        for (start, _), (end, name) in flows
    )


def test_virtio_flows_through_its_device(images: Path, tmp_path: Path) -> None:
    """Available by the vCPU, used by the device: seen with a driver's bare notifications."""
    from vmm import VM
    from vmm.observe.trace.recording import RecordFile, Recording
    from vmm.trace_options import TraceFile

    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    with VM(elf64(ONE_OF_EACH), memory="16M", disks=[str(disk)]) as vm:
        file = RecordFile(TraceFile.of(tmp_path / "t.perfetto"))
        recording = Recording(vm, file, lambda _line: None)
        (name,) = [str(f.name) for f in vm.board.pci.functions.values() if "disk" in f.name]
        vm.run()
        device = vm.peripherals.disks[0]
        device.notify(0)
        transport = next(f for f in vm.board.pci.functions.values() if f.name == name)
        transport.queue_interrupt(0)  # type: ignore[attr-defined]
        recording.stop()
    slices = Slices(tmp_path / "t.perfetto")
    assert (("vCPU 0", "disk0 avail 0"), ("disk0", "avail 0")) in set(slices.flows())
    assert (("disk0", "avail 0"), ("disk0", "used 0")) in set(slices.flows())


def test_two_runs_are_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        record(ONE_OF_EACH, folder / "t.perfetto")
        record(ONE_OF_EACH, folder / "t.txt")
    for name in ("t.perfetto", "t.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.oracle
def test_trace_processor_loads_it(tmp_path: Path) -> None:
    program = shutil.which("trace_processor") or shutil.which("trace_processor_shell")
    if program is None:
        pytest.skip("trace_processor is not installed")
    record(ONE_OF_EACH, tmp_path / "t.perfetto")
    query = tmp_path / "q.sql"
    query.write_text("select name, count(*) from slice group by name;")
    answer = subprocess.run(
        [program, "-q", str(query), str(tmp_path / "t.perfetto")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert '"EXIT:IO_INSTRUCTION",4' in answer
