"""The same run however it is cut: whole, stepped, with host sleeps, over snapshots."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm import VM, Result

KERNELS = {
    "timer.elf": 1,
    "usermode.elf": 1,
    "smc.elf": 1,
    "smp.elf": 2,
    "modes.elf": 1,
    "kvm.elf": 1,
    "kvm_smp.elf": 3,
}
Way = Callable[[VM], Result]


def stepped(vm: VM) -> Result:
    for _ in vm:
        pass
    return vm.run()


def stepped_with_sleeps(vm: VM) -> Result:
    for count, _ in enumerate(vm):
        if count % 400 == 50:
            time.sleep(0.02)
    return vm.run()


def over_snapshots(vm: VM) -> Result:
    for count, _ in enumerate(vm):
        if count % 300 == 7:
            vm.snapshot()
    return vm.run()


def left_and_taken_up(vm: VM) -> Result:
    while not vm.is_stopped():
        for count, _ in enumerate(vm):
            if count == 100:
                break
    return vm.run()


def back_and_again(vm: VM) -> Result:
    """Half of it twice, from one snapshot."""
    kept = None
    for count, _ in enumerate(vm):
        if count == 200:
            kept = vm.snapshot()
        if count == 500:
            break
    assert kept is not None
    vm.restore(kept)
    return vm.run()


def record(images: Path, name: str, way: Way, **options: Any) -> tuple[Any, ...]:
    cpus = KERNELS[name]
    with VM(
        images / name,
        memory="64M",
        cpus=cpus,
        cmdline=f"cpus={cpus}" if cpus > 1 else "",
        **options,
    ) as vm:
        result = way(vm)
        return result.status, result.instructions, result.cycles, result.exits, result.digest()


@pytest.mark.parametrize("name", KERNELS)
def test_the_same_run(images: Path, name: str) -> None:
    whole = record(images, name, VM.run)
    assert record(images, name, VM.run) == whole
    assert record(images, name, stepped) == whole
    assert record(images, name, stepped_with_sleeps) == whole
    assert record(images, name, left_and_taken_up) == whole
    assert record(images, name, VM.run, poll_input=lambda: b"") == whole
    assert record(images, name, over_snapshots) == whole
    again = record(images, name, back_and_again)
    assert (again[0], again[1], again[2], again[4]) == (whole[0], whole[1], whole[2], whole[4])
