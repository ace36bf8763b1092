"""`ring1 stat`: perf's tables to the letter, and its arithmetic against Python's statistics."""

import json
import math
import os
import pty
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from hwmodel.cpu.recording import Event, Sum
from tests.images import OFF, elf64
from tests.vmm.observe.trace.traced import ONE_OF_EACH, record
from vmm import VM
from vmm.cli.main import main
from vmm.observe.counting import Counting
from vmm.observe.perf_stat import SortKey, Style, perf_stat, table
from vmm.observe.trace.records import Enter, Leave, opened

MIXED = f"""
    mov ebp, 5; more: xor eax, eax; cpuid; dec ebp; jnz more
    in al, 0x61; mov dx, 0x2ff; in al, dx; in al, 0x61
    mov rsi, 0xfee00020; mov eax, [rsi]; mov dword ptr [rsi + 0x60], 0
    {OFF}
"""


UNPRICED = "fnstenv [rbx]"
"""No table of LLVM's has it, and nobody has measured it for the overlay."""


def sums_of(times: list[int], vcpu: int = 0, key: int = 10, event: Event = Event.EXIT) -> Sum:
    mean = statistics.fmean(times)
    squares = sum((time - mean) ** 2 for time in times)
    return Sum(
        event, key, False, vcpu, len(times), sum(times), min(times), max(times), mean, squares
    )


def test_the_classic_table_to_the_letter() -> None:
    """The example of reference/debugger-and-traces.md, with the widths of builtin-kvm.c."""
    parts = [
        sums_of([1100, 9900, 3210, 2000, 4000], key=48),
        sums_of([500] * 10, key=10),
    ]
    lines = list(table(perf_stat(parts, 1_000_000_000), Style.CLASSIC))
    assert lines == [
        "",
        "",
        "Analyze events for all VMs, all VCPUs:",
        "",
        (
            "             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time"
            "         Avg time "
        ),
        "",
        (
            "               CPUID         10    66.67%    19.83%      0.50us      0.50us"
            "      0.50us ( +-   0.00% )"
        ),
        (
            "       EPT_VIOLATION          5    33.33%    80.17%      1.10us      9.90us"
            "      4.04us ( +-  38.26% )"
        ),
        "",
        "Total Samples:15, Total events handled time:25.21us.",
        "",
    ]


def test_the_new_columns() -> None:
    lines = list(table(perf_stat([sums_of([1000, 3000])], 2_500_000_000), Style.NEW))
    assert lines[0] == "KVM event statistics (1 entries)"
    assert re.split(r"\s{2,}", lines[1].strip()) == [
        "Event name", "Samples", "Sample%", "Time (ns)", "Time%", "Max Time (ns)",
        "Min Time (ns)", "Mean Time (ns)",
    ]  # fmt: skip
    assert lines[2].split() == ["CPUID", "2", "100.00%", "1600", "100.00%", "1200", "400", "800"]
    assert len(lines[1]) == len(lines[2]) == 40 + 4 * 12 + 3 * 14 + 7 * 2


def test_virtual_cpus_are_merged_as_if_they_were_one() -> None:
    times = [[3, 5, 8, 13], [21, 34], [55]]
    parts = [sums_of(found, vcpu) for vcpu, found in enumerate(times)]
    (row,) = perf_stat(parts, 1_000_000_000).rows
    flat = [time for found in times for time in found]
    error = statistics.stdev(flat) / math.sqrt(len(flat))
    assert row.mean == pytest.approx(statistics.fmean(flat))
    assert row.deviation == pytest.approx(100 * error / statistics.fmean(flat))
    (one,) = perf_stat(parts, 1_000_000_000, vcpu=2).rows
    assert (one.samples, one.deviation) == (1, 0.0)


def test_time_sorts_by_the_mean() -> None:
    parts = [sums_of([10] * 100, key=10), sums_of([50], key=12)]
    names = [row.name for row in perf_stat(parts, 1, key=SortKey.TIME).rows]
    assert names == ["HLT", "CPUID"]
    assert [row.name for row in perf_stat(parts, 1).rows] == ["CPUID", "HLT"]


def test_what_c_adds_up_is_what_the_trace_says(tmp_path: Path) -> None:
    """Exit to entry, by reason: worked out again from the records."""
    record(MIXED, tmp_path / "t.ring")
    spent: dict[int, list[int]] = {}
    with opened(tmp_path / "t.ring") as trace:
        left: Leave | None = None
        for item in trace:
            if isinstance(item, Leave) and not item.is_stop:
                left = item
            elif isinstance(item, Enter) and left is not None:
                spent.setdefault(left.reason, []).append(item.cycle - left.left_at)
                left = None
    with VM(elf64(MIXED), memory="16M") as vm:
        counting = Counting(vm)
        vm.run()
        found = {part.key: part for part in counting.sums() if part.event is Event.EXIT}
        counting.stop()
    assert found.keys() == spent.keys()
    for key, times in spent.items():
        part = found[key]
        assert (part.count, part.cycles, part.least, part.most) == (
            len(times), sum(times), min(times), max(times),
        )  # fmt: skip
        assert part.mean == pytest.approx(statistics.fmean(times))
        expected = sum((time - part.mean) ** 2 for time in times)
        assert part.squares == pytest.approx(expected, abs=1e-6)


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_ports_and_memory_by_address() -> None:
    with VM(elf64(MIXED), memory="16M") as vm:
        counting = Counting(vm)
        vm.run()
        ports = {row.name: row for row in counting.stat(Event.PORT).rows}
        memory = {row.name: row.samples for row in counting.stat(Event.MMIO).rows}
        counting.stop()
    assert {name: row.samples for name, row in ports.items()} == {"0x61:PIN": 2, "0x2ff:PIN": 1}
    assert memory == {"0xfee00020:R": 1, "0xfee00080:W": 1}


def test_the_run_is_the_same() -> None:
    ends = []
    for counted in (False, True):
        with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
            counting = Counting(vm) if counted else None
            result = vm.run()
            ends.append((result.cycles, result.exits, result.digest()))
            if counting is not None:
                counting.stop()
    assert ends[0] == ends[1]


def test_kvm_names_in_json(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(images / "kvm_smp.elf")
    assert main(["stat", "--json", "--cpus", "2", "--memory", "64M", image]) & 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ring1.stat/1"
    assert found["exits"] > found["io_exits"] > 0
    assert found["hypercalls"] > 0
    assert found["irq_injections"] > 0
    assert found["halt_exits"] >= found["halt_wakeup"] > 0
    vmexits = {row["name"]: row["samples"] for row in found["events"]["vmexit"]}
    assert found["io_exits"] - vmexits["IO_INSTRUCTION"] in (0, 1)  # the last is never entered


def test_on_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table alone is on stdout; serial output goes where it is told to go."""
    words = ["stat", "--serial-file", str(tmp_path / "serial"), str(images / "hello.elf")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("\n\nAnalyze events for all VMs, all VCPUs:\n\n             VM-EXIT ")
    assert "Hello" not in out
    assert b"Hello" in (tmp_path / "serial").read_bytes()
    assert main(["stat", "--event", "ioport", "-k", "time", str(images / "hello.elf")]) == 0
    assert "      IO Port Access    Samples" in capsys.readouterr().out


def test_instructions_without_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example of each form with the blocks that have one; what has a price is not listed."""
    image = tmp_path / "guest.elf"
    image.write_bytes(
        elf64(f"mov ebx, 0x200000; {UNPRICED}; add eax, ebx; jmp l; l: {UNPRICED};" + OFF)
    )
    words = ["stat", "--unknown-costs", "--timing", "cycle", "--memory", "4M"]
    assert main([*words, str(image)]) == 0
    listed = capsys.readouterr().out.partition("instructions whose cost is not in the table")[2]
    assert f"           2  {UNPRICED}\n" in listed
    assert "add" not in listed
    assert main([*words, "--json", str(image)]) == 0
    assert json.loads(capsys.readouterr().out)["unknown_costs"][UNPRICED] == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--event", "x"], "--event 'x' is not vmexit, mmio or ioport"),
        (["--style", "x"], "--style 'x' is not one of classic, new"),
        (["--key", "x"], "--key 'x' is not one of sample, time"),
        (["--vcpu", "1"], "--vcpu 1 is not there; give 0 to 0"),
        (["--nonsense"], "No such option: --nonsense"),
        (["--unknown-costs", "--timing", "fast"], "--timing fast has no costs; add --timing cycle"),
        (["--memory", "1"], "--memory"),
    ],
)
def test_bad_words(
    images: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str
) -> None:
    assert main(["stat", *words, str(images / "hello.elf")]) == 64
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1


def test_live_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal the table is drawn while the guest runs, with how far it has come."""
    image = tmp_path / "guest"
    image.write_bytes(elf64("again: xor eax, eax; cpuid; jmp again"))
    ours, theirs = pty.openpty()
    words = ["stat", "--max-cycles", "1500000", str(image)]
    with subprocess.Popen(
        [sys.executable, "-m", "vmm", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=theirs, cwd=Path(__file__).parents[3],
    ) as run:  # fmt: skip
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:
            pass
        assert run.wait(120) == 68
    os.close(ours)
    assert b"VM-EXIT" in seen
    assert b"of 1,500,000" in seen
    assert b"M instructions/s" in seen
