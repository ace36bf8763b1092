"""Virtual CPUs on several physical ones: real kernels, and the books."""

from pathlib import Path
from typing import Any

import pytest

from tests.images import elf64
from vmm import VM
from vmm.errors import UsageError
from vmm.outcome import Result
from vmm.schedule import PolicyName, SchedOptions

MACHINES: list[dict[str, Any]] = [
    {"pcpus": 1, "sched": "rr,slice=1ms"},
    {"pcpus": 2},
    {"pcpus": 2, "sched": "credit,slice=1ms,window=100"},
    {"pcpus": 3, "sched": "rr,slice=200us,nodes=3"},
    {"pcpus": 4, "sched": "gang,slice=1ms"},
]


def run(image: Path, cpus: int, **options: Any) -> tuple[str, Result, VM]:
    said: list[bytes] = []
    with VM(
        image, cpus=cpus, cmdline=f"cpus={cpus}", serial_output=said.append,
        memory="32M", max_cycles=1_000_000_000, **options,
    ) as vm:  # fmt: skip
        result = vm.run()
        vm.digest_then = vm.digest()  # type: ignore[attr-defined]
        vm.ledger_then = vm.ledger  # type: ignore[attr-defined]
    return b"".join(said).decode(), result, vm


@pytest.mark.parametrize("timing", ["fast", "cycle"])
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_kernels_pass_on_any_machine(images: Path, machine: dict[str, Any], timing: str) -> None:
    said, result, vm = run(images / "smp.elf", 4, timing=timing, **machine)
    assert result.status == 1, said
    ledger: Any = vm.ledger_then  # type: ignore[attr-defined]
    latest = max(account.total for account in ledger.vcpus)
    assert [account.total for account in ledger.vcpus] == [latest] * 4
    if timing == "cycle" and machine["pcpus"] < 4:
        assert sum(account["steal"] for account in ledger.vcpus) > 0


def test_the_same_again(images: Path) -> None:
    smp = images / "smp.elf"
    runs = [run(smp, 3, timing="cycle", pcpus=2, sched="credit,slice=1ms") for _ in range(2)]
    first, second = (
        (said, result.cycles, result.instructions, result.ledger, vm.digest_then)  # type: ignore[attr-defined]
        for said, result, vm in runs
    )
    assert first == second


@pytest.mark.parametrize("sched", [None, "rr,slice=100us"])
def test_steal_time_and_kicks_of_kvms_dialect(images: Path, sched: str | None) -> None:
    """What the kernel asks for is one physical CPU; the machine's scheduler has to be as good."""
    said, result, _ = run(images / "kvm_smp.elf", 3, timing="cycle", sched=sched)
    assert result.status == 1, said


def test_code_that_another_processor_writes_runs_as_written(images: Path) -> None:
    """Each round one processor patches a function that both have run, and both call it."""
    said, result, _ = run(images / "smc_smp.elf", 2, timing="fast", pcpus=2)
    assert result.status == 1, said


def test_a_store_is_seen_within_a_window(images: Path) -> None:
    for window in (50, 5000):
        _, result, _ = run(
            images / "smp.elf", 2, timing="fast", pcpus=2, sched=f"credit,window={window}"
        )
        assert result.status == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"pcpus": 0}, "--pcpus 0"),
        ({"pcpus": 65}, "--pcpus 65"),
        ({"sched": "fifo"}, "'fifo'"),
        ({"sched": "credit,slice=5"}, "slice=5"),
        ({"sched": "credit,slice=0ms"}, "slice=0ms"),
        ({"sched": "credit,speed=3"}, "speed=3"),
        ({"sched": "credit,weight=0"}, "weight=0"),
        ({"sched": "credit,cap=x"}, "cap=x"),
        ({"sched": "credit,affinity=1-"}, "affinity=1-"),
        ({"sched": "credit,affinity=3", "pcpus": 2}, "physical CPU 3"),
        ({"pcpus": 2, "apicv": True}, "--apicv"),
        ({"pcpus": 2, "max_instructions": 5}, "--max-instructions"),
        ({"pcpus": 2, "gdb": "1"}, "--gdb"),
    ],
)
def test_bad_input_is_one_line_that_names_it(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as refused:
        VM(elf64("hlt"), memory="4M", **options)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_options_are_read() -> None:
    read = SchedOptions.of("rr,slice=500us,affinity=0-1+3,weight=9,cap=50,nodes=2,window=7,wake=8")
    assert read == SchedOptions(
        PolicyName.ROUND_ROBIN, 500_000, affinity=frozenset({0, 1, 3}), weight=9, cap=50, nodes=2,
        window=7, wake=8,
    )  # fmt: skip
    assert SchedOptions.of("credit").slice_ns == 30_000_000, "Xen's default"


def test_a_snapshot_of_a_machine_is_refused() -> None:
    with VM(elf64("hlt"), memory="4M", pcpus=2) as vm, pytest.raises(UsageError):
        vm.restore(vm.snapshot())
