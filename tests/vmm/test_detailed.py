"""`--timing detailed`: each access through the modelled caches, each branch through a predictor.

Expected counts are from the model's file (32 KiB and 1 MiB, 64-byte lines) and from the
predictor's paragraph in cext/detail.h.
"""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hwmodel.arch.model import CpuModel
from tests.images import EXIT, elf64
from tests.vmm.test_stops_move_nothing import END, MIXED, in_slices, outcome, whole
from vmm import VM
from vmm.testing.fuzz.campaign import state_of
from vmm.testing.fuzz.generate import programs
from vmm.testing.fuzz.machines import Ring1Machine
from vmm.testing.fuzz.record import MOST, make_batch

MODEL = CpuModel.load("cascade-lake")
TRAINING = 18
"""Wrong guesses for the loop around: each new pattern of twelve outcomes has its own counter."""
LINES = {32: 512, 256: 4096}
AROUND = "mov rdi, 0x400000; mov r15d, 20\nagain:\n{}\ndec r15d; jnz again\n" + EXIT


def counted(code: str, **options: Any) -> dict[str, Any]:
    with VM(elf64(code), timing="detailed", memory="16M", **options) as vm:
        vm.run_until(1 << 40)
        return vm.pcpu.detail_counters() | {"guest": vm.ledger["guest"], "cycles": vm.clock.now}


def chase(kib: int) -> str:
    """A walk through the lines of `kib` KiB in an order that no prefetcher foresees."""
    lines = LINES[kib]
    step = 397 if kib == 32 else 2741  # odd: each line comes once a round
    body = (
        f"mov ecx, {lines}\nnext:\nmov rax, [rdi + rbx]; add ebx, {step * 64}; "
        f"and ebx, {lines * 64 - 1}; dec ecx; jnz next"
    )
    return "xor ebx, ebx; " + AROUND.format(body)


def test_what_fits_the_first_level_misses_once() -> None:
    seen = counted(chase(32))
    assert seen["loads"] >= 20 * 512
    assert 512 <= sum(seen["misses"]) < 600


def test_what_fits_the_second_level_costs_its_latency() -> None:
    seen = counted(chase(256))
    beyond = MODEL.costs.references.level2 - MODEL.costs.references.level1
    assert seen["misses"][0] > 18 * 4096  # all rounds but the first
    assert 4096 <= seen["misses"][1] + seen["misses"][2] < 4300
    assert seen["guest"] > 19 * 4096 * beyond


def test_a_stream_is_prefetched() -> None:
    """New lines in a row: no load waits for memory."""
    body = "mov ecx, 4096\nnext:\nmov rax, [rdi]; add rdi, 64; dec ecx; jnz next"
    code = "mov rdi, 0x400000\n" + body + "\n" + EXIT
    seen = counted(code)
    assert seen["misses"][2] >= 4096
    assert seen["guest"] < 4096 * (MODEL.costs.references.level3 / 2)


@pytest.mark.parametrize(
    ("body", "least", "most"),
    [
        ("mov ecx, 100\nl:\ndec ecx; jnz l", 20, 40),  # the last round of each loop
        ("imul ebx, ebx, 1103515245; add ebx, 12345; bt ebx, 30; jc l; nop\nl:\n", 0, 20),
        ("lea rax, [rip + a]; lea rcx, [rip + b]; test r15d, 1; cmovz rax, rcx; jmp rax\na: nop\nb:",  # noqa: E501
         19, 24),
        ("call f; call f; jmp l\nf: ret\nl:", 0, 2),
        ("lea rax, [rip + l]; push rax; ret\nl:", 20, 22),
    ],
)  # fmt: skip
def test_branches(body: str, least: int, most: int) -> None:
    seen = counted("mov rsp, 0x300000; mov ebx, 1; " + AROUND.format(body))
    assert seen["branches"] >= 20
    assert least <= seen["mispredicted"] <= most + TRAINING
    assert seen["guest"] >= seen["mispredicted"] * MODEL.costs.mispredict


def test_chance_is_guessed_wrong_every_other_time() -> None:
    body = "imul rbx, rbx, 1664525; add rbx, 1013904223; bt rbx, 31; jc over; nop\nover:\n"
    code = "mov rbx, 7; " + AROUND.format(body).replace("r15d, 20", "r15d, 2000")
    assert 700 < counted(code)["mispredicted"] < 1300


def guest_state(image: Path, timing: str) -> tuple[bytes, dict[str, int], int]:
    with VM(image, timing=timing) as vm:
        vm.run_until(2_000_000_000)
        assert vm.is_stopped()
        ram = hashlib.sha256(vm.memory.ram.view[: vm.memory.size]).digest()
        return ram, vm.regs.as_dict(), vm.pcpu.instructions


@pytest.mark.parametrize(
    "kernel",
    ["hello", "usermode", "modes", "exceptions", "paging", "legacy_paging", "delivery",
     "breakpoints", "exits", "smc", "tasks"],
)  # fmt: skip
def test_the_guest_ends_alike(images: Path, kernel: str) -> None:
    """These read no clock; devices say when they did something, so their state differs."""
    image = images / f"{kernel}.elf"
    fast = guest_state(image, "fast")
    assert guest_state(image, "cycle") == fast
    assert guest_state(image, "detailed") == fast


def test_instructions_end_alike() -> None:
    """Random sequences of every family that the processor has, faults among them."""
    batch = make_batch(programs(4004, 0, MOST))
    ends = []
    for timing in ("fast", "cycle", "detailed"):
        machine = Ring1Machine(timing=timing)
        ends.append(machine.run(batch))
        machine.close()
    assert ends[0] == ends[1] == ends[2]
    vectors = {state_of(ends[2], number).vector for number in range(MOST)}
    assert {3, 6, 13, 14} <= vectors


def test_going_back_knows_the_caches_and_the_predictor() -> None:
    """An ordinary snapshot empties them, on taking as on going back; a second life is the same."""
    with VM(elf64(MIXED), timing="detailed", memory="8M") as vm:
        vm.run_until(20_000)
        middle = vm.snapshot()
        vm.run_until(END)
        first = outcome(vm), vm.pcpu.detail_counters()["mispredicted"]
        vm.restore(middle)
        vm.run_until(END)
        assert (outcome(vm), first[1]) == (first[0], first[1])


def test_the_command(images: Path) -> None:
    """The whole way: statistics that add up, and more cycles than a block's price has."""
    cycles = {}
    for timing in ("cycle", "detailed"):
        words = ["run", "--timing", timing, "--stats", "json", str(images / "paging.elf")]
        done = subprocess.run(
            [sys.executable, "-m", "vmm", *words], capture_output=True, text=True, check=False
        )
        seen = json.loads(done.stderr)
        assert seen["status"] == done.returncode
        assert sum(seen["ledger"].values()) == seen["cycles"]
        cycles[timing] = seen["ledger"]["guest"]
    assert cycles["detailed"] > cycles["cycle"]


def test_two_virtual_processors(images: Path) -> None:
    """Several virtual CPUs on one processor: the ledger adds up, and slices do not show."""
    image = images / "smp.elf"
    expected, end = whole(image, "detailed", cpus=2)
    assert in_slices(image, "detailed", 1, end, cpus=2) == expected


@pytest.mark.parametrize("kernel", ["timer", "delivery"])
def test_slices_of_kernels(images: Path, kernel: str) -> None:
    image = images / f"{kernel}.elf"
    expected, end = whole(image, "detailed")
    assert in_slices(image, "detailed", 1, end) == expected


@pytest.mark.parametrize("seed", range(2))
def test_slices(seed: int) -> None:
    image = elf64(MIXED)
    expected, end = whole(image, "detailed", memory="8M")
    assert (
        in_slices(image, "detailed", random.Random(seed).getrandbits(16), end, memory="8M")
        == expected
    )
