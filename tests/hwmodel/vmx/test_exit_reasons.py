"""The table of exit reasons is complete and true, and the exits that no other file reaches."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hwmodel.arch import registers
from hwmodel.arch.exits import ExitReason
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.capabilities import CR4_FIXED1, IMPLEMENTED, Capabilities
from tests.bare import CODE, GDT, TSS, Bare, Mode
from tests.hwmodel.vmx.exit_reasons import (
    EXIT_REASONS,
    Absent,
    Activity,
    Control,
    Cr4,
    Reached,
    Row,
)

Make = Callable[..., Bare]
TESTS = Path(__file__).parents[2]


def test_the_table_has_every_reason() -> None:
    assert list(EXIT_REASONS) == list(ExitReason)
    assert len(EXIT_REASONS) == 80


@pytest.mark.parametrize("reason", EXIT_REASONS, ids=lambda reason: reason.name)
def test_what_the_table_says_is_so(reason: ExitReason) -> None:
    row: Row = EXIT_REASONS[reason]
    match row:
        case Reached(file, function):
            assert f"\ndef {function}(" in (TESTS / file).read_text()
        case Control(word, name):
            assert not IMPLEMENTED[word] & word.layout[name].mask
        case Cr4(bit):
            assert not CR4_FIXED1 & registers.Cr4.layout[bit].mask
        case Activity(misc):
            assert not getattr(Capabilities.implemented().misc, misc)
        case Absent(feature):
            assert feature


def test_a_task_switch_exits(bare: Make) -> None:
    machine = bare(Mode.PROTECTED)
    selector = 0x30
    machine.word(GDT + selector, 0x67 | (TSS & 0xFFFFFF) << 16 | 0x89 << 40)
    machine.vmcs[Field.GUEST_GDTR_LIMIT] = 0x37
    machine.vmcs[Field.GUEST_TR_SELECTOR] = 0x28
    machine.poke(CODE, b"\x90\xea" + (0).to_bytes(4, "little") + selector.to_bytes(2, "little"))
    vmexit = machine.enter()
    assert (vmexit.name, vmexit.qualification) == ("TASK_SWITCH", 2 << 30 | selector)
    assert (vmexit.rip, vmexit.instruction_length) == (CODE + 1, 7)


def test_an_ept_misconfiguration_exits(bare: Make) -> None:
    machine = bare()
    machine.ept.replace_page(0x30_0000, 0x30_0000 | 2)  # writable and not readable
    vmexit = machine.run("nop; mov rax, [rbx]", rbx=0x30_0123)
    assert (vmexit.name, vmexit.guest_physical) == ("EPT_MISCONFIG", 0x30_0123)
    assert (vmexit.qualification, vmexit.rip) == (0, CODE + 1)


def test_a_full_page_modification_log_exits(bare: Make) -> None:
    machine = bare()
    machine.control2(enable_pml=1)
    machine.vmcs[Field.PML_ADDRESS] = 0x30_0000
    machine.vmcs[Field.GUEST_PML_INDEX] = 0xFFFF
    vmexit = machine.run("nop; mov [rbx], rax", rbx=0x31_0000)
    assert vmexit.name == "PML_FULL"


def test_invpcid_exits_with_invlpg(bare: Make) -> None:
    machine = bare()
    machine.control2(enable_invpcid=1)
    machine.control(invlpg_exiting=1)
    vmexit = machine.run("invpcid rcx, [rbx]", rbx=0x9000, rcx=2)
    assert vmexit.name == "INVPCID"
    assert vmexit.instruction_info == 1 << 28 | 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7
