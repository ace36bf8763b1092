"""A guest that switches CR3 again and again over 64 hot pages: what PCIDs spare, in cycles.

Manual, "Process-Context Identifiers (PCIDs)": MOV to CR3 with bit 63 set invalidates nothing.
"""

import pytest

from tests.images import elf64
from vmm import VM

pytestmark = pytest.mark.held_by("ept", why="counts cycles where CR3 does not exit")

SWITCHES = 3000  # the million takes as long as it takes, and says the same
PAGES_4K = """
    mov rax, cr3; mov rbx, [rax]; and rbx, -4096; mov rcx, [rbx]; and rcx, -4096
    mov rdi, 0x200000; mov rdx, 0x600003; xor esi, esi
    fill: mov [rdi + rsi * 8], rdx; add rdx, 4096; inc esi; cmp esi, 512; jne fill
    mov qword ptr [rcx + 24], 0x200003; mov cr3, rax; mov r8, rax; mov r9, rax
"""
TAGGED = "mov rax, cr4; bts rax, 17; mov cr4, rax; bts r8, 63; bts r9, 63; or r9, 3"
LOOP = f"""
    mov r10d, {SWITCHES}
    switch: mov cr3, r8; xchg r8, r9; mov rbx, 0x600000; mov ecx, 64
    touch: mov rax, [rbx]; add rbx, 4096; dec ecx; jnz touch
    dec r10d; jnz switch; cli; hlt
"""


def cycles(prepare: str) -> int:
    image = elf64(f"{PAGES_4K}; {prepare}; {LOOP}")
    with VM(image, memory="16M", timing="cycle", dialects=["none"]) as vm:
        result = vm.run()
    assert result.reason == "halted", result.message
    return result.cycles


def test_pcids_spare_two_thirds_of_the_cycles() -> None:
    assert cycles("nop") >= 3 * cycles(TAGGED)
