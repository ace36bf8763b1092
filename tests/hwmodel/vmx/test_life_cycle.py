"""The life of a VMCS: clear, active, current, launched; VM-instruction errors by number.

Manual, "VMX Instruction Reference" and "VM-Instruction Error Numbers".
"""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field, Width
from hwmodel.arch.vmx_errors import InstructionError as E
from hwmodel.arch.vmx_errors import Status
from hwmodel.root import NONE, NotInOperationError, Result, VmxOperation
from hwmodel.vmx.capabilities import REVISION, Capabilities
from hwmodel.vmx.fields import decode, exists
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
VMXON, ONE, TWO = 0x30_0000, 0x30_1000, 0x30_2000
FOREVER = 1 << 40


@pytest.fixture(name="machine")
def _machine(bare: Make) -> Bare:
    machine = bare()
    for region in (VMXON, ONE, TWO):
        machine.word(region, REVISION)
    return machine


@pytest.fixture(name="vmx")
def _vmx(machine: Bare) -> VmxOperation:
    operation = VmxOperation(machine.pcpu, machine.ram)
    machine.vmcs.native.region = ONE
    operation.regions[ONE] = machine.vmcs
    assert operation.vmxon(VMXON).succeeds
    return operation


def failed(result: Result, error: E) -> bool:
    return (result.status, result.error) == (Status.FAIL_VALID, error)


def test_from_clear_to_launched_and_back(machine: Bare, vmx: VmxOperation) -> None:
    machine.load("cpuid; cpuid; hlt")
    assert vmx.vmclear(ONE).succeeds
    assert vmx.vmptrld(ONE).succeeds
    assert vmx.vmptrst().value == ONE
    assert failed(vmx.vmresume(FOREVER), E.VMRESUME_NON_LAUNCHED)
    launched = vmx.vmlaunch(FOREVER)
    assert launched.vmexit is not None
    assert launched.vmexit.name == "CPUID"
    assert failed(vmx.vmlaunch(FOREVER), E.VMLAUNCH_NON_CLEAR)
    machine.vmcs.skip_exit()
    resumed = vmx.vmresume(FOREVER)
    assert resumed.vmexit is not None
    assert resumed.vmexit.rip == CODE + 2
    assert vmx.vmclear(ONE).succeeds
    assert (vmx.current, vmx.active) == (NONE, set())
    assert vmx.vmresume(FOREVER).status is Status.FAIL_INVALID
    vmx.vmptrld(ONE)
    assert failed(vmx.vmresume(FOREVER), E.VMRESUME_NON_LAUNCHED)


def test_a_failed_entry_leaves_it_clear(machine: Bare, vmx: VmxOperation) -> None:
    vmx.vmptrld(ONE)
    vmx.vmwrite(Field.VM_EXIT_CONTROLS, 0)
    assert failed(vmx.vmlaunch(FOREVER), E.ENTRY_INVALID_CONTROL)
    assert vmx.vmread(Field.VM_INSTRUCTION_ERROR).value == 7
    assert failed(vmx.vmresume(FOREVER), E.VMRESUME_NON_LAUNCHED)


def test_a_shadow_of_mov_ss_in_root_mode(vmx: VmxOperation) -> None:
    vmx.vmptrld(ONE)
    vmx.events_blocked_by_mov_ss = True
    assert failed(vmx.vmlaunch(FOREVER), E.ENTRY_BLOCKED_BY_MOV_SS)


@pytest.mark.parametrize("address", [0x30_1008, 1 << 46])
def test_addresses_that_no_region_can_have(vmx: VmxOperation, address: int) -> None:
    assert vmx.vmptrld(address).status is Status.FAIL_INVALID  # nowhere to put the number
    vmx.vmptrld(ONE)
    assert failed(vmx.vmptrld(address), E.VMPTRLD_INVALID_ADDRESS)
    assert failed(vmx.vmclear(address), E.VMCLEAR_INVALID_ADDRESS)
    assert vmx.current == ONE


def test_the_vmxon_region_is_no_vmcs(vmx: VmxOperation) -> None:
    vmx.vmptrld(ONE)
    assert failed(vmx.vmptrld(VMXON), E.VMPTRLD_VMXON_POINTER)
    assert failed(vmx.vmclear(VMXON), E.VMCLEAR_VMXON_POINTER)


@pytest.mark.parametrize("revision", [REVISION + 1, REVISION | 1 << 31])
def test_another_revision_is_refused(machine: Bare, vmx: VmxOperation, revision: int) -> None:
    machine.word(TWO, revision)
    vmx.vmptrld(ONE)
    assert failed(vmx.vmptrld(TWO), E.VMPTRLD_WRONG_REVISION)


def test_vmxon_and_vmxoff(machine: Bare, vmx: VmxOperation) -> None:
    assert vmx.vmxon(VMXON).status is Status.FAIL_INVALID
    vmx.vmptrld(ONE)
    assert failed(vmx.vmxon(VMXON), E.VMXON_IN_ROOT)
    assert vmx.vmxoff().succeeds
    with pytest.raises(NotInOperationError):
        vmx.vmptrst()
    machine.word(VMXON, REVISION + 1)
    assert vmx.vmxon(VMXON).status is Status.FAIL_INVALID


def test_every_field_is_written_and_read_in_its_width(vmx: VmxOperation) -> None:
    vmx.vmptrld(TWO)
    value = 0x0123_4567_89AB_CDEF
    for field in Field:
        if not exists(field, vmx.pcpu.capabilities):
            assert failed(vmx.vmwrite(field, value), E.UNSUPPORTED_COMPONENT)
            continue
        assert vmx.vmwrite(field, value).succeeds
        assert vmx.vmread(field).value == value & field.mask
        if field.width is Width.BITS_64:
            assert vmx.vmread(field | 1).value == value >> 32
            assert vmx.vmwrite(field | 1, 0x1_5555_5555).succeeds
            assert vmx.vmread(field).value == 0x5555_5555_89AB_CDEF


@pytest.mark.parametrize("encoding", [0x0801, 0x6801, 0x0016, 0x203C, 0x2FFE, 1 << 31, 1 << 12])
def test_encodings_of_no_field(vmx: VmxOperation, encoding: int) -> None:
    vmx.vmptrld(ONE)
    assert failed(vmx.vmread(encoding), E.UNSUPPORTED_COMPONENT)
    assert decode(encoding, Capabilities.implemented()) is None


def test_without_a_current_vmcs_fields_are_nowhere(vmx: VmxOperation) -> None:
    assert vmx.vmread(Field.GUEST_RIP).status is Status.FAIL_INVALID
    assert vmx.vmwrite(Field.GUEST_RIP, 0).status is Status.FAIL_INVALID
