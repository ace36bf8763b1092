"""VMX root operation: the life of a VMCS, from VMCLEAR to VMRESUME, as software has it.

A VMCS is *clear* or *launched*, *active* on a processor or not, and at most one is *current*
("Virtual-Machine Control Data Structures", "VMX Instruction Reference"). A region of machine memory
names it; what it holds is the processor's own business (`Vmcs`).
"""

from dataclasses import dataclass
from typing import Final

from hwmodel.arch.vmcs import Field
from hwmodel.arch.vmx_errors import InstructionError as E
from hwmodel.arch.vmx_errors import Status
from hwmodel.mem.ram import Ram
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.exit import VM_FAIL, Exit
from hwmodel.vmx.fields import decode
from hwmodel.vmx.state import Vmcs

NONE: Final = (1 << 64) - 1
"""The current-VMCS pointer where there is no current VMCS."""
_LOW: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a VMX instruction answers: flags, error number, and what it reads or how it exits."""

    status: Status
    error: E | None = None
    value: int = 0
    vmexit: Exit | None = None

    @property
    def succeeds(self) -> bool:
        """Whether it is VMsucceed."""
        return self.status is Status.SUCCEED


_OK: Final = Result(Status.SUCCEED)


class NotInOperationError(RuntimeError):
    """A VMX instruction before VMXON, which is #UD: the caller's mistake."""


class VmxOperation:
    """VMX operation of one pCPU, over the VMCS regions in `ram`."""

    def __init__(self, pcpu: Pcpu, ram: Ram) -> None:
        """Start outside VMX operation."""
        self.pcpu, self.ram = pcpu, ram
        self.regions: dict[int, Vmcs] = {}
        self.active: set[int] = set()
        self.current = NONE
        self.events_blocked_by_mov_ss = False
        self._vmxon: int | None = None

    def vmcs_at(self, address: int) -> Vmcs:
        """The VMCS of a region, made when it is first asked for."""
        if address not in self.regions:
            self.regions[address] = Vmcs()
            self.regions[address].native.region = address
        return self.regions[address]

    def vmxon(self, address: int) -> Result:
        """Enter VMX operation; `address` is that of the VMXON region."""
        if self._vmxon is not None:
            return self._fail(E.VMXON_IN_ROOT)
        if not self._is_region(address) or self._revision(address) != self._own_revision():
            return Result(Status.FAIL_INVALID)
        self._vmxon, self.current = address, NONE
        return _OK

    def vmxoff(self) -> Result:
        """Leave VMX operation; no VMCS is active after it."""
        self._root()
        self._vmxon, self.current = None, NONE
        self.active.clear()
        return _OK

    def vmclear(self, address: int) -> Result:
        """Make a VMCS clear and inactive; it is current no longer."""
        vmxon = self._root()
        if not self._is_region(address):
            return self._fail(E.VMCLEAR_INVALID_ADDRESS)
        if address == vmxon:
            return self._fail(E.VMCLEAR_VMXON_POINTER)
        self.pcpu.forget(self.vmcs_at(address))
        self.vmcs_at(address).native.launched = 0
        self.active.discard(address)
        if self.current == address:
            self.current = NONE
        return _OK

    def vmptrld(self, address: int) -> Result:
        """Make a VMCS active and current."""
        vmxon = self._root()
        if not self._is_region(address):
            return self._fail(E.VMPTRLD_INVALID_ADDRESS)
        if address == vmxon:
            return self._fail(E.VMPTRLD_VMXON_POINTER)
        if self._revision(address) != self._own_revision():
            return self._fail(E.VMPTRLD_WRONG_REVISION)
        self.vmcs_at(address)
        self.active.add(address)
        self.current = address
        return _OK

    def vmptrst(self) -> Result:
        """Read the current-VMCS pointer."""
        self._root()
        return Result(Status.SUCCEED, value=self.current)

    def vmread(self, encoding: int) -> Result:
        """Read a field of the current VMCS."""
        found = self._field(encoding)
        if isinstance(found, Result):
            return found
        vmcs, field, high = found
        return Result(Status.SUCCEED, value=vmcs[field] >> 32 if high else vmcs[field])

    def vmwrite(self, encoding: int, value: int) -> Result:
        """Write a field of the current VMCS; one half of 64 bits leaves the other alone."""
        found = self._field(encoding)
        if isinstance(found, Result):
            return found
        vmcs, field, high = found
        if field.is_read_only and not self.pcpu.capabilities.misc.vmwrite_any_field:
            return self._fail(E.READ_ONLY_COMPONENT)
        vmcs[field] = vmcs[field] & _LOW | (value & _LOW) << 32 if high else value
        return _OK

    def vmlaunch(self, until: int) -> Result:
        """Enter a clear VMCS; it is launched when that works."""
        return self._enter(until, launched=False)

    def vmresume(self, until: int) -> Result:
        """Enter a launched VMCS."""
        return self._enter(until, launched=True)

    def _enter(self, until: int, *, launched: bool) -> Result:
        self._root()
        if self.current == NONE:
            return Result(Status.FAIL_INVALID)
        vmcs = self.vmcs_at(self.current)
        if self.events_blocked_by_mov_ss:
            return self._fail(E.ENTRY_BLOCKED_BY_MOV_SS)
        if launched and not vmcs.native.launched:
            return self._fail(E.VMRESUME_NON_LAUNCHED)
        if not launched and vmcs.native.launched:
            return self._fail(E.VMLAUNCH_NON_CLEAR)
        vmexit = self.pcpu.enter(vmcs, until).copy()
        if vmexit.reason == VM_FAIL:
            return self._fail(E(vmexit.qualification))
        return Result(Status.SUCCEED, vmexit=vmexit)

    def _field(self, encoding: int) -> tuple[Vmcs, Field, bool] | Result:
        self._root()
        if self.current == NONE:
            return Result(Status.FAIL_INVALID)
        found = decode(encoding, self.pcpu.capabilities)
        if found is None:
            return self._fail(E.UNSUPPORTED_COMPONENT)
        return self.vmcs_at(self.current), *found

    def _fail(self, error: E) -> Result:
        """VMfail: valid, with the number in the current VMCS, or invalid without one."""
        if self.current == NONE:
            return Result(Status.FAIL_INVALID)
        self.vmcs_at(self.current)[Field.VM_INSTRUCTION_ERROR] = error
        return Result(Status.FAIL_VALID, error)

    def _root(self) -> int:
        if self._vmxon is None:
            raise NotInOperationError("VMXON comes first: outside VMX operation this is #UD")
        return self._vmxon

    def _is_region(self, address: int) -> bool:
        aligned, width = address & 0xFFF == 0, self.pcpu.capabilities.physical_bits
        return aligned and address >> width == 0

    def _own_revision(self) -> int:
        return int(self.pcpu.capabilities.basic.revision)

    def _revision(self, address: int) -> int:
        raw = self.ram.view[address : address + 4]
        return int.from_bytes(raw, "little") if len(raw) == 4 else NONE
