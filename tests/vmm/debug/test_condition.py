"""What the language of exit conditions takes, and where it says that something is wrong."""

import pytest

from tests.images import OFF, elf64
from vmm import VM
from vmm.debug.condition import Condition, ConditionError
from vmm.debug.session import Session
from vmm.debug.stop import StopKind

GUEST = f"""
    mov ecx, 3
again:
    mov dx, 0x3f8
    mov al, 65
    out dx, al
    add dx, 5
    in al, dx
    mov eax, 0x40000000
    push rcx
    xor ecx, ecx
    cpuid
    mov ecx, 0xc0000080
    rdmsr
    pop rcx
    mov [0xfee00020], eax
    mov eax, [0xfee00030]
    loop again
    {OFF}
"""


EPT = pytest.mark.held_by("ept", why="other ways have other exits there, and more of them")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("reason=FOO & n>=3", 8),
        ("reason=CPUID & porter=3", 16),
        ("CPUID", 1),
        ("port=0x3f8 &", 13),
        ("(port=0x3f8", 12),
        ("port=", 6),
        ("port in 5..3", 10),
        ("port in 5", 10),
        ("n>=3 | port=1", 1 + 5),
        ("!n>=3", 1),
        ("(port=1 & n>3) & write", 1),
        ("port=1 extra", 8),
        ("port # 3", 6),
        ("port=0x10000000000000000", 6),
        ("(" * 40 + "write" + ")" * 40, 25),
    ],
)
def test_where_it_is_wrong(text: str, column: int) -> None:
    with pytest.raises(ConditionError) as caught:
        Condition.parse(text)
    assert caught.value.column == column
    assert f"column {column}:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("port=0x3f8", ["IO_INSTRUCTION"] * 3),
        ("port in 0x3f8..0x3fe & read", ["IO_INSTRUCTION"] * 3),
        ("port in 0x3f8..0x3fd & !write", []),
        ("bytes=1 & write", ["IO_INSTRUCTION"] * 3),
        ("leaf=0x40000000", ["CPUID"] * 3),
        ("reason=CPUID & n>=3", ["CPUID"]),
        ("reason=CPUID and n in 2..3", ["CPUID"]),
        ("msr", ["MSR_READ"] * 3),
        pytest.param(
            "reason=EPT_VIOLATION & gpa in 0xfee00000..0xfee01000 & write",
            ["EPT_VIOLATION"] * 3,
            marks=EPT,
        ),
        pytest.param("gpa=0xfee00030 || nr=5", ["EPT_VIOLATION"] * 3, marks=EPT),
        ("rcx=0xc0000080 & vcpu=0 & cpl=0", ["MSR_READ"] * 3),
        ("vcpu!=0", []),
        ("guest_cr3!=0 & reason=HLT", ["HLT"]),
        ("(leaf=0x40000000 | reason=HLT) & n>3", ["HLT"]),
        pytest.param("cycle<1 | step<3 | exit=1", ["IO_INSTRUCTION"], marks=EPT),
    ],
)
def test_what_it_stops_at(text: str, names: list[str]) -> None:
    with VM(elf64("mov rsp, 0x300000\n" + GUEST), memory="4M") as vm:
        session, found = Session(vm), []
        session.break_on_exit(text)
        while (stop := session.resume()).kind is StopKind.EXIT:
            assert stop.vmexit is not None
            found.append(stop.vmexit.name)
        assert found == names
