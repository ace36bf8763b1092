"""Each check of a VM entry refuses what the manual says, and tells it as the manual says.

Manual, chapter "VM Entries". The cases are data (`cases`, `guest_cases`); what a failure is told by
is the manual's too: VM-instruction error 7 or 8, or exit reason 33 with a qualification.
"""

from collections.abc import Iterator

import pytest

from hwmodel.arch.controls import EntryControls, ExitControls, PinBased, Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.capabilities import IMPLEMENTED, Capabilities
from hwmodel.vmx.checks import CHECKS, Stage, examine, first_failure
from hwmodel.vmx.native import check_names
from tests.hwmodel.vmx.cases import Case
from tests.hwmodel.vmx.entering import ALL, GUEST, Entering, expected, told
from tests.hwmodel.vmx.mutate import survivors

WORDS = (
    (PinBased, Field.PIN_BASED_VM_EXEC_CONTROL), (Primary, Field.CPU_BASED_VM_EXEC_CONTROL),
    (Secondary, Field.SECONDARY_VM_EXEC_CONTROL), (ExitControls, Field.VM_EXIT_CONTROLS),
    (EntryControls, Field.VM_ENTRY_CONTROLS),
)  # fmt: skip
MODES = ("long", "protected", "real", "v8086", "pae")


@pytest.fixture(name="make")
def _make() -> Iterator[type[Entering]]:
    made: list[Entering] = []

    def make(mode: str) -> Entering:
        made.append(Entering(mode))
        return made[-1]

    yield make  # type: ignore[misc]
    for machine in made:
        machine.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_good_state_enters(make: type[Entering], mode: str) -> None:
    machine = make(mode)
    assert told(machine.pcpu, machine.attempt())[2] is None
    assert first_failure(machine.view()) is None


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_check_refuses(make: type[Entering], case: Case) -> None:
    machine = make(case.mode)
    machine.change(case)
    before = {field: machine.vmcs[field] for field in Field}
    vmexit = machine.attempt()
    assert told(machine.pcpu, vmexit) == expected(case)
    assert machine.vmcs.native.launched == 0
    assert vmexit.instructions == 0
    after = {field: machine.vmcs[field] for field in Field}
    changed = {field for field in Field if before[field] != after[field]}
    if vmexit.name == "VM_FAIL":
        assert changed == {Field.VM_INSTRUCTION_ERROR}
        assert after[Field.VM_INSTRUCTION_ERROR] == vmexit.qualification
    else:
        assert changed <= {Field.VM_EXIT_REASON, Field.EXIT_QUALIFICATION}
        assert after[Field.VM_EXIT_REASON] == 1 << 31 | 33


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_twin_refuses(make: type[Entering], case: Case) -> None:
    machine = make(case.mode)
    machine.change(case)
    failure = first_failure(machine.view())
    assert failure is not None
    stage = {7: Stage.CONTROLS, 8: Stage.HOST}.get(expected(case)[1], Stage.GUEST)
    name, qualification, check = expected(case)
    assert failure.name == check
    assert failure.stage is (Stage.GUEST if name == "INVALID_STATE" else stage)
    if failure.stage is Stage.GUEST:
        assert failure.qualification == qualification


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_each_check_agrees_with_its_twin(make: type[Entering], case: Case) -> None:
    machine = make(case.mode)
    machine.change(case)
    native = [machine.pcpu.check_passes(machine.vmcs, n) for n in range(len(CHECKS))]
    assert native == [finding.passes for finding in examine(machine.view())]


def test_every_check_has_a_case_and_a_twin() -> None:
    assert check_names() == [check.name for check in CHECKS]
    assert {case.check for case in ALL} == {check.name for check in CHECKS}


@pytest.mark.parametrize("case", GUEST, ids=lambda case: case.name)
def test_what_changes_after_a_good_entry_is_seen(make: type[Entering], case: Case) -> None:
    """The checks are not made anew where nothing changed: here something does."""
    machine = make(case.mode)
    if case.mode == "v8086":
        machine.poke(machine.vmcs[Field.GUEST_CS_BASE], b"\x90\xeb\xfd")
    else:
        machine.load("again: jmp again")
    for _ in range(2):
        assert machine.attempt().name == "DEADLINE"
    machine.change(case)
    assert told(machine.pcpu, machine.attempt()) == expected(case)


def test_a_control_that_is_not_implemented_is_refused(make: type[Entering]) -> None:
    machine = make("long")
    machine.allow(Capabilities.implemented())
    for word, field in WORDS:
        good = machine.vmcs[field]
        for bit in range(32):
            if not int(IMPLEMENTED[word]) >> bit & 1 and not good >> bit & 1:
                machine.vmcs[field] = good | 1 << bit
                assert told(machine.pcpu, machine.attempt())[:2] == ("VM_FAIL", 7)
        machine.vmcs[field] = good
    assert machine.attempt().name == "HLT"


def test_each_check_is_missed_when_it_is_left_out() -> None:
    assert survivors(check_names()[::10]) == []  # the others: make mutate
