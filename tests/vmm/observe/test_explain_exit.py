"""`explain exit`: the rule that made it one, what its handler did and what it cost."""

import json
from pathlib import Path

import pytest

from hwmodel.arch.controls import Primary
from hwmodel.arch.vmcs import Field
from tests.images import OFF, elf64
from tests.vmm.observe.trace.traced import ONE_OF_EACH
from vmm import VM
from vmm.cli.main import main
from vmm.observe.exit import effects_of, exit_lines, exit_story

pytestmark = pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")

UNKNOWN_MSR = f"mov ecx, 0xdead; rdmsr; {OFF}"


@pytest.fixture(name="told", scope="module")
def _told() -> dict[int, list[str]]:
    """Each exit of ONE_OF_EACH, told before and after its handler."""
    told = {}
    with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
        for vmexit in vm:
            story = exit_story(vm.current, vmexit)
            vcpu = vm.current
            effects = effects_of(vm, vcpu, lambda: vcpu.handle(vmexit))  # noqa: B023
            vmexit.handled = True
            told[vmexit.sequence] = list(exit_lines(story, effects))
    return told


def test_a_port(told: dict[int, list[str]]) -> None:
    lines = told[1]
    assert lines[0] == "exit 1: IO_INSTRUCTION (30) of vCPU 0"
    assert any(line.endswith("Io(0x800040 immediate port=0x80)") for line in lines)
    (why,) = [line for line in lines if line.startswith("why: ")]
    assert 'the control "unconditional I/O exiting" is 1' in why or "is set in I/O bitmap A" in why
    assert "  post: wrote 1 to port 0x80: 0x12" in lines
    assert "  rip: 0x100002 -> 0x100004" in lines
    assert lines[-1] == "cost in cycles: device 2500"


def test_cpuid_always_exits(told: dict[int, list[str]]) -> None:
    lines = told[3]
    assert "why: it always exits in VMX non-root operation" in lines
    assert "  rax: 0x40000000 -> 0x40000010" in lines


def test_an_msr_and_its_bitmap(told: dict[int, list[str]]) -> None:
    assert any("reads of MSR 0x277 are set in the MSR bitmaps" in line for line in told[4])
    assert any("writes of MSR 0x277 are set in the MSR bitmaps" in line for line in told[5])


def test_a_device_in_memory(told: dict[int, list[str]]) -> None:
    lines = told[7]
    assert any("the EPT entry of level" in line and "is not present" in line for line in lines)
    assert "  lapic: wrote 4 at 0xfee00080: 0xff000000" in lines


def test_hlt(told: dict[int, list[str]]) -> None:
    lines = told[max(told)]
    assert any('the control "hlt exiting" is 1' in line for line in lines)
    assert "  vCPU 0: sleeps" in lines


def test_what_is_injected() -> None:
    with VM(elf64(UNKNOWN_MSR), memory="16M") as vm:
        vmexit = next(iter(vm))
        story = exit_story(vm.current, vmexit)
        assert (
            "is set in the MSR bitmaps" in story.cause.text or "neither range" in story.cause.text
        )
        effects = effects_of(vm, vm.current, lambda: vm.current.handle(vmexit))
        assert effects.injects == "vector 0xd of type 3, error code 0x0"


def test_a_control_that_somebody_sets() -> None:
    with VM(elf64(f"rdtsc; {OFF}"), memory="16M") as vm:
        vmcs = vm.current.vmcs
        vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= int(Primary.of(rdtsc_exiting=1))
        vmexit = next(iter(vm))
        assert vmexit.name == "RDTSC"
        assert exit_story(vm.current, vmexit).cause.text == 'the control "rdtsc exiting" is 1'


def test_a_cr0_bit_of_the_hosts() -> None:
    with VM(elf64(f"mov rax, cr0; xor eax, 0x20; mov cr0, rax; {OFF}"), memory="16M") as vm:
        vmexit = next(iter(vm))
        story = exit_story(vm.current, vmexit)
        assert vmexit.name == "CR_ACCESS"
        assert story.cause.text == "bits 0x20 of CR0 are the host's and would change"


def test_what_the_trap_technique_traps() -> None:
    with VM(elf64(f"cli; {OFF}"), memory="16M", technique="trap") as vm:
        vmexit = next(vmexit for vmexit in vm if vmexit.name == "CLI")
        cause = exit_story(vm.current, vmexit).cause
        assert cause.text.startswith(
            "the guest's ring 0 is ring 1, where it raises vector 13; bit 13"
        )


def test_looking_changes_nothing() -> None:
    with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
        digests = []
        for vmexit in vm:
            before = vm.digest(), vm.pcpu.mmu_counters()
            exit_story(vm.current, vmexit)
            assert (vm.digest(), vm.pcpu.mmu_counters()) == before
            digests.append(before[0])
    with VM(elf64(ONE_OF_EACH), memory="16M") as vm:
        assert [vm.digest() for _ in vm] == digests


def test_on_the_command_line(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(images / "hello.elf")
    assert main(["explain", "exit", image]) == 0
    out = capsys.readouterr().out
    assert out.startswith("exit 714: IO_INSTRUCTION (30) of vCPU 0")
    assert "shutdown: wrote" in out
    assert main(["explain", "exit", image, "--at", "exit:1", "--json"]) == 0
    story, effects = json.loads(capsys.readouterr().out)
    assert story["name"] == "CR_ACCESS"
    assert story["qualification"]["bits"].startswith("CrAccess(")
    assert "rip" in effects["registers"]
