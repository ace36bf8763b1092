"""PAUSE loops exit after KVM's windows (gap 128, the first 4096), and give the turn away."""

from typing import Any

import pytest

from hwmodel.arch.controls import Secondary
from hwmodel.arch.vmcs import Field
from tests.images import EXIT, elf64
from vmm import VM
from vmm.sched.round_robin import QUANTUM

LOOP = "mov ecx, 4000; again: pause; dec ecx; jnz again"
SPINS = f"{LOOP}; xor eax, eax; {EXIT}"


def test_the_default_controls() -> None:
    with VM(elf64("hlt"), memory="4M") as vm:
        vmcs = vm.vcpus[0].vmcs
        assert Secondary(vmcs[Field.SECONDARY_VM_EXEC_CONTROL]).pause_loop_exiting
        assert (vmcs[Field.PLE_GAP], vmcs[Field.PLE_WINDOW]) == (128 + 140, 4096)


def run(text: str, **options: Any) -> tuple[Any, ...]:
    with VM(elf64(text), memory="4M", reboot=False, dialects=["none"], **options) as vm:
        result = vm.run()
        return result, result.exits.get("PAUSE_INSTRUCTION", 0), result.digest()


@pytest.mark.parametrize(
    ("rounds", "exits"), [(1365, 0), (1400, 1), (4000, 1), (4100, 2), (9600, 3)]
)
def test_each_window_of_a_loop_is_twice_the_last(rounds: int, exits: int) -> None:
    """Loops of three instructions; exits come after 4,096, 12,288 and 28,672 cycles."""
    result, seen, _ = run(
        f"mov ecx, {rounds}; again: pause; dec ecx; jnz again; xor eax, eax; {EXIT}"
    )
    assert result.status == 1
    assert seen == exits


@pytest.mark.parametrize(("apart", "exits"), [(128, 2), (267, 2), (268, 2), (269, 0), (340, 0)])
def test_pauses_further_apart_than_the_gap_are_no_loop(apart: int, exits: int) -> None:
    """100 PAUSEs; of the cycles between two the loop's own three instructions take three."""
    nops = "; ".join(["nop"] * (apart - 3))
    text = f"mov ecx, 100; again: pause; {nops}; dec ecx; jnz again; xor eax, eax; {EXIT}"
    assert run(text)[1] == exits


def test_programs_may_spin() -> None:
    """Manual, "PAUSE-Loop Exiting": at CPL 0 only."""
    text = f"""
        mov rax, cr3; or qword ptr [rax], 4; mov rbx, [rax]; and rbx, -4096
        or qword ptr [rbx], 4; mov rcx, [rbx]; and rcx, -4096; or qword ptr [rcx], 4; mov cr3, rax
        mov word ptr [0x300010], 0xffff; mov rax, 0x00cff3000000ffff; mov [0x300008], rax
        mov rax, 0x00affb000000ffff; mov [0x300010], rax
        mov word ptr [0x300100], 0x17; mov qword ptr [0x300102], 0x300000; lgdt [0x300100]
        push 0x0b; push 0x380000; push 0x3002; push 0x13; lea rax, [rip + user]; push rax; iretq
        user: {LOOP}; ud2"""
    result, exits, _ = run("mov rsp, 0x390000;" + text)
    assert exits == 0
    assert result.reason == "triple_fault"  # UD2, without a handler
    assert result.instructions > 12_000


def test_the_turn_goes_to_who_is_waited_for() -> None:
    """The first processor spins for a word that the second writes: no quantum passes."""
    second = bytes.fromhex("c706 0080 0100 f4".replace(" ", ""))  # mov word [0x8000], 1; hlt
    text = f"""
        mov rax, {int.from_bytes(second[:7] + bytes(1), "little")}; mov [0x9000], rax
        mov ebx, 0xfee00000; mov dword ptr [rbx + 0xf0], 0x1ff
        mov dword ptr [rbx + 0x310], 0x1000000
        mov dword ptr [rbx + 0x300], 0x4500; mov dword ptr [rbx + 0x300], 0x4609
        again: pause; cmp word ptr [0x8000], 1; jne again
        xor eax, eax; {EXIT}"""
    result, exits, digest = run(text, cpus=2)
    assert result.status == 1, result.message
    assert exits == 1
    assert result.instructions < QUANTUM / 4
    assert run(text, cpus=2)[2] == digest
