"""Classic trap-and-emulate: no VT-x for the guest's instructions, shadow tables for its memory.

The guest's ring 0 is ring 1 and its IOPL 0, so that whatever is privileged traps; what is sensitive
and does not trap is replaced when it is translated (cext/deprivileged.c). The flags, tables and
control registers that the guest believes in are the VMCS's between entries, which here is nothing
but the hypervisor's record of a virtual CPU. Exceptions and software interrupts all lead to the
hypervisor, which passes them on; frames on the guest's stack are written by the same delivery as
under VT-x.
"""

from typing import Final

from hwmodel.arch.controls import Primary
from hwmodel.arch.vmcs import Field
from vmm.technique.shadow import Shadow

_ALL_EXCEPTIONS: Final = (1 << 32) - 1
_EXITING: Final = int(Primary.of(rdtsc_exiting=1, rdpmc_exiting=1))


class Trap(Shadow):
    """The shadow root of one virtual CPU whose ring 0 is ring 1."""

    def prepare(self) -> None:
        """Let everything trap."""
        super().prepare()
        self._vmcs.native.deprivileged = 1
        self._vmcs[Field.EXCEPTION_BITMAP] = _ALL_EXCEPTIONS
        self._vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= _EXITING
