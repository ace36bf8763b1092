"""`explain hang`: who waits, for what, since when, and who could end it."""

from pathlib import Path

import pytest

from tests.images import OFF, elf64
from vmm import VM
from vmm.cli.main import main
from vmm.observe.hang import Waiting, hang_lines, hang_story

LOCKED = (
    "lea rbx, [rip + lock]; again: pause; cmp dword ptr [rbx], 0; jne again; {off} lock: .long 7"
)
SPINS = LOCKED.format(off=f"{OFF};")
TIMER = """
    mov al, 0x30; out 0x43, al; mov al, 0xff; out 0x40, al; out 0x40, al
    sti; hlt
"""


def only(image: bytes, ahead: int = 0, cycles: int = 1_000_000) -> Waiting:
    with VM(image, memory="16M") as vm:
        vm.run_until(cycles)
        return hang_story(vm, ahead=ahead).vcpus[0]


def test_halted_for_good() -> None:
    waiting = only(elf64(OFF))
    assert waiting.state == "halted"
    assert waiting.since == 1
    assert waiting.waits_for == ("an NMI: it halted with interrupts off",)
    assert waiting.ends == ()


def test_halted_until_the_timer() -> None:
    with VM(elf64(TIMER), memory="16M") as vm:
        vm.run_until(50_000)
        story = hang_story(vm)
        (waiting,) = story.vcpus
        assert waiting.waits_for == ("an interrupt",)
        assert waiting.ends[0].startswith("pit has an event at cycle ")
        assert not story.is_stuck
        since = waiting.since
        assert since is not None
        assert since < vm.clock.now
        assert any("since cycle" in line for line in hang_lines(story))


def test_a_lock_that_nobody_gives_back() -> None:
    waiting = only(elf64(SPINS), ahead=10_000_000)
    assert waiting.state == "spinning"
    assert waiting.spin is not None
    assert waiting.spin.value == 7
    assert waiting.spin.holder is None
    assert waiting.ends == ()
    assert "to change from 0x7, in the loop" in waiting.waits_for[0]


def test_looking_ahead_changes_nothing() -> None:
    with VM(elf64(SPINS), memory="16M") as vm:
        vm.run_until(1_000_000)
        before = vm.digest(), vm.clock.now
        hang_story(vm, ahead=10_000_000)
        assert (vm.digest(), vm.clock.now) == before


def test_who_holds_a_lock(images: Path) -> None:
    """Processor 0 waits for a word that processor 1 writes as soon as it has its turn."""
    with VM(images / "kvm_smp.elf", memory="64M", cpus=2) as vm:
        found = None
        for _ in range(400):
            vm.run_until(vm.clock.now + 20_000)
            if vm.is_stopped():
                break
            spins = [w.spin for w in hang_story(vm, ahead=2_000_000).vcpus if w.spin]
            held = [spin for spin in spins if spin.holder is not None]
            if held:
                found = held[0]
                break
    assert found is not None
    assert f"vCPU {found.holder} writes " in found.release


def test_processors_that_were_never_started() -> None:
    with VM(elf64(SPINS), memory="16M", cpus=3) as vm:
        vm.run_until(1000)
        story = hang_story(vm)
    assert [waiting.state for waiting in story.vcpus] == [
        "running", "wait-for-SIPI", "wait-for-SIPI",
    ]  # fmt: skip
    assert story.vcpus[1].waits_for == ("a start-up IPI",)


def test_a_vector_that_cannot_be_taken() -> None:
    """Requested while interrupts are off: the local APIC holds it back."""
    with VM(elf64(SPINS), memory="16M") as vm:
        vm.run_until(1000)
        lapic = vm.current.lapic
        lapic.write_register(0xF0, 0x1FF)
        lapic.write_register(0x300, 1 << 18 | 0x41)  # a self-IPI
        (waiting,) = hang_story(vm).vcpus
    assert "vector 0x41 is requested, but interrupts are off" in waiting.waits_for


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "guest"
    image.write_bytes(elf64(SPINS))
    assert main(["explain", "hang", str(image), "--at", "cycle:500000", "--memory", "16M"]) == 66
    out = capsys.readouterr().out
    assert "vCPU 0: spinning" in out
    assert out.endswith("the guest hangs\n")
    assert main(["explain", "hang", str(image), "--at", "cycle:5", "--ahead", "0"]) == 0
