"""A guest that switches CR3 again and again over 64 hot pages: what PCIDs spare, in cycles.

Manual, "Process-Context Identifiers (PCIDs)": MOV to CR3 with bit 63 set invalidates nothing.
"""

import sys

import pytest

from tests.images import elf64
from vmm import VM

pytestmark = pytest.mark.held_by("ept", why="counts cycles where CR3 does not exit")

PAGES_4K = """
    mov rax, cr3; mov rbx, [rax]; and rbx, -4096; mov rcx, [rbx]; and rcx, -4096
    mov rdi, 0x200000; mov rdx, 0x600003; xor esi, esi
    fill: mov [rdi + rsi * 8], rdx; add rdx, 4096; inc esi; cmp esi, 512; jne fill
    mov qword ptr [rcx + 24], 0x200003; mov cr3, rax; mov r8, rax; mov r9, rax
"""
TAGGED = "mov rax, cr4; bts rax, 17; mov cr4, rax; bts r8, 63; bts r9, 63; or r9, 3"
LOOP = """
    mov r10d, {switches}
    switch: mov cr3, r8; xchg r8, r9; mov rbx, 0x600000; mov ecx, 64
    touch: mov rax, [rbx]; add rbx, 4096; dec ecx; jnz touch
    dec r10d; jnz switch; cli; hlt
"""


def cycles(prepare: str, switches: int) -> int:
    image = elf64(f"{PAGES_4K}; {prepare}; {LOOP.format(switches=switches)}")
    with VM(image, memory="16M", timing="cycle", dialects=["none"]) as vm:
        result = vm.run()
    assert result.reason == "halted", result.message
    return result.cycles


@pytest.mark.parametrize("switches", [3000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_pcids_spare_two_thirds_of_the_cycles(
    switches: int, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, tagged = cycles("nop", switches), cycles(TAGGED, switches)
    with capsys.disabled():
        sys.stdout.write(f" {switches:,} switches: {plain / tagged:.1f} x fewer cycles with PCIDs ")
    assert plain >= 3 * tagged
