"""The host state of a plain 64-bit hypervisor, and the control bits that every VMCS must have.

Software here is Python and has no registers that an exit could load. An entry checks the host-state
area all the same, and a guest that is a hypervisor finds the rules that silicon has.
"""

from typing import Final

from hwmodel.arch.controls import EntryControls, ExitControls, PinBased, Primary
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.capabilities import CR0_FIXED0, CR4_FIXED0, Capabilities
from hwmodel.vmx.state import Vmcs

_CODE, _DATA, _TASK = 0x10, 0x18, 0x40
_KERNEL: Final = 0xFFFF_FFFF_8100_0000

HOST_STATE: Final[dict[Field, int]] = {
    Field.HOST_CR0: int(Cr0.of(pe=1, mp=1, et=1, ne=1, wp=1, am=1, pg=1)),
    Field.HOST_CR3: 0x1000,
    Field.HOST_CR4: int(Cr4.of(pae=1, pge=1, osfxsr=1, osxmmexcpt=1, vmxe=1)),
    Field.HOST_IA32_EFER: int(Efer.of(sce=1, lme=1, lma=1, nxe=1)),
    Field.HOST_IA32_PAT: 0x0007_0406_0007_0406,
    Field.HOST_CS_SELECTOR: _CODE,
    Field.HOST_SS_SELECTOR: _DATA,
    Field.HOST_DS_SELECTOR: _DATA,
    Field.HOST_ES_SELECTOR: _DATA,
    Field.HOST_TR_SELECTOR: _TASK,
    Field.HOST_RIP: _KERNEL,
    Field.HOST_RSP: _KERNEL + 0x10_0000,
}
CR0_FORCED: Final = int(CR0_FIXED0 & ~Cr0.of(pe=1, pg=1))
"""Bits of CR0 that an unrestricted guest has whatever it writes: NE."""
CR4_FORCED: Final = int(CR4_FIXED0)
"""Bits of CR4 that every guest has: VMXE."""
EXIT_CONTROLS: Final = ExitControls.of(
    save_debug_controls=1,
    host_address_space_size=1,
    acknowledge_interrupt_on_exit=1,
    save_ia32_pat=1,
    load_ia32_pat=1,
    save_ia32_efer=1,
    load_ia32_efer=1,
)
ENTRY_CONTROLS: Final = EntryControls.of(load_debug_controls=1, load_ia32_pat=1, load_ia32_efer=1)
_WORDS: Final[tuple[tuple[Field, type[Word], int], ...]] = (
    (Field.PIN_BASED_VM_EXEC_CONTROL, PinBased, 0),
    (Field.CPU_BASED_VM_EXEC_CONTROL, Primary, 0),
    (Field.VM_EXIT_CONTROLS, ExitControls, int(EXIT_CONTROLS)),
    (Field.VM_ENTRY_CONTROLS, EntryControls, int(ENTRY_CONTROLS)),
)


def prepare(vmcs: Vmcs, capabilities: Capabilities) -> None:
    """Give a VMCS a host state, and the least controls with which it can be entered.

    The guest's state is switched whole: debug controls, IA32_PAT and IA32_EFER both ways.
    """
    for field, value in HOST_STATE.items():
        vmcs[field] = value
    for field, word, wanted in _WORDS:
        vmcs[field] = capabilities.allowed(word).must_be_1 | wanted
    vmcs[Field.VMCS_LINK_POINTER] = (1 << 64) - 1
