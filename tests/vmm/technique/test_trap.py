"""The trap technique: the flag that POPF cannot change in ring 1, and what solves it."""

from typing import Any

import pytest

from tests.images import OFF, elf64
from vmm import VM

IF = 1 << 9
UNREPLACED = 2  # of `deprivileged`: the instructions as they are

# Clear IF by POPF; tell what PUSHF shows then, and what it showed before.
POPF = f"""
    mov rsp, 0x90000
    pushfq
    pop rbx
    sti
    pushfq
    pop rax
    btr rax, 9
    push rax
    popfq
    pushfq
    pop rcx
    {OFF}
"""
# Ring 0's own selector and CR0, as its programs see them.
SHOWN = f"""
    mov rsp, 0x90000
    smsw rax
    mov bx, cs
    sgdt [rsp]
    mov ecx, [rsp]
    str dx
    {OFF}
"""


def end(
    code: str, *, deprivileged: int | None = None, **options: Any
) -> tuple[Any, dict[str, int]]:
    with VM(elf64(code), memory="16M", **options) as vm:
        if deprivileged is not None:
            vm.vcpus[0].vmcs.native.deprivileged = deprivileged
        exits = vm.run().exits
        return vm.regs.as_dict(), exits


def test_popf_in_ring_1_does_not_change_the_interrupt_flag() -> None:
    """Popek and Goldberg's condition fails: no trap, and another result than in ring 0."""
    registers, exits = end(POPF, technique="trap", deprivileged=UNREPLACED)
    assert registers["rcx"] & IF
    assert "POPF" not in exits


@pytest.mark.parametrize("options", [{"mmu": "ept"}, {"mmu": "shadow"}, {"technique": "trap"}])
def test_replaced_it_does(options: dict[str, Any]) -> None:
    registers, exits = end(POPF, **options)
    assert not registers["rcx"] & IF
    assert ("POPF" in exits) == ("technique" in options)


def test_the_flag_is_the_hypervisors() -> None:
    with VM(elf64(POPF), memory="16M", technique="trap") as vm:
        seen = [(vmexit.name, bool(vm.regs.rflags & IF)) for vmexit in vm]
    named = [(name, flag) for name, flag in seen if name in {"STI", "POPF", "CLI", "HLT"}]
    assert named == [("STI", False), ("POPF", True), ("CLI", False), ("HLT", False)]


def test_what_ring_0_sees_is_its_own() -> None:
    trap, vtx = end(SHOWN, technique="trap")[0], end(SHOWN)[0]
    assert trap == vtx
