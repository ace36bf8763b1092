"""The VMX controls of a plain `vtx` guest, as DESIGN.md's "Exits under vtx" chooses them."""

from collections.abc import Iterable
from typing import Final

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.model import CpuModel
from hwmodel.arch.msr import Msr
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.capabilities import Capabilities
from hwmodel.vmx.host import CR0_FORCED, CR4_FORCED, prepare
from hwmodel.vmx.state import Vmcs
from vmm.errors import UsageError
from vmm.exits.cr import CR0_HOST_OWNED, CR4_GUEST_OWNED
from vmm.memory.guest import GuestMemory

MSR_BITMAP_PAGE: Final = 0
PASSED_MSRS: Final = (
    Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.STAR, Msr.LSTAR, Msr.CSTAR, Msr.SYSCALL_MASK,
    Msr.IA32_SYSENTER_CS, Msr.IA32_SYSENTER_ESP, Msr.IA32_SYSENTER_EIP, Msr.TSC_AUX,
)  # fmt: skip

PLE_GAP: Final = 128 + 140
"""Cycles between two PAUSEs of one loop, at most: KVM's default (arch/x86/kvm/vmx/vmx.c) from the
end of one, which takes 140 since Skylake (Intel Optimization Reference Manual)."""
PLE_WINDOW: Final = 4096
"""Cycles that a loop may last before it exits; KVM's default."""

_PIN: Final = PinBased.of(external_interrupt_exiting=1, nmi_exiting=1, virtual_nmis=1)
_PRIMARY: Final = Primary.of(
    hlt_exiting=1,
    uncond_io_exiting=1,
    use_msr_bitmaps=1,
    use_tsc_offsetting=1,
    cr8_load_exiting=1,
    cr8_store_exiting=1,
    rdpmc_exiting=0,
    monitor_exiting=1,
    mwait_exiting=1,
    activate_secondary_controls=1,
)
_SECONDARY: Final = Secondary.of(
    enable_ept=1,
    enable_vpid=1,
    unrestricted_guest=1,
    enable_rdtscp=1,
    enable_invpcid=1,
    wbinvd_exiting=1,
    pause_loop_exiting=1,
    rdrand_exiting=1,
    rdseed_exiting=1,
)


def refuse_lacking(model: CpuModel, capabilities: Capabilities, more: Iterable[Word]) -> None:
    """Raise UsageError if a CPU model does not allow what this hypervisor sets, or `more`."""
    if missing := capabilities.missing((_PIN, _PRIMARY, _SECONDARY, *more)):
        raise UsageError(
            f"--cpu-model {model.name} does not allow {missing[0]}, which is needed; use another"
        )


def set_controls(vmcs: Vmcs, memory: GuestMemory, capabilities: Capabilities, index: int) -> None:
    """Set the controls, masks and host state of a new virtual CPU."""
    prepare(vmcs, capabilities)
    vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= int(_PIN)
    vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= int(_PRIMARY)
    vmcs[Field.SECONDARY_VM_EXEC_CONTROL] = int(_SECONDARY)
    vmcs[Field.PLE_GAP], vmcs[Field.PLE_WINDOW] = PLE_GAP, PLE_WINDOW
    vmcs[Field.VIRTUAL_PROCESSOR_ID] = index + 1
    vmcs[Field.EPT_POINTER] = memory.ept.pointer()
    vmcs[Field.MSR_BITMAP] = memory.private_page(MSR_BITMAP_PAGE)
    vmcs[Field.CR0_GUEST_HOST_MASK] = CR0_HOST_OWNED
    vmcs[Field.CR0_READ_SHADOW] = vmcs[Field.GUEST_CR0]
    vmcs[Field.GUEST_CR0] |= CR0_FORCED
    vmcs[Field.CR4_GUEST_HOST_MASK] = ~CR4_GUEST_OWNED
    vmcs[Field.CR4_READ_SHADOW] = vmcs[Field.GUEST_CR4]
    vmcs[Field.GUEST_CR4] |= CR4_FORCED


def withhold(vmcs: Vmcs, features: frozenset[str]) -> None:
    """Make #UD of what CPUID does not offer ("Changes to Instruction Behavior in VMX")."""
    lacking = Secondary.of(
        enable_rdtscp="rdtscp" not in features, enable_invpcid="invpcid" not in features
    )
    vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~int(lacking)


def write_msr_bitmap(memory: GuestMemory, features: frozenset[str]) -> None:
    """Fill the bitmap page: everything exits but what passes ("MSR-Bitmap Address")."""
    bitmap = bytearray(b"\xff" * 4096)
    for msr in (*PASSED_MSRS, *((Msr.IA32_PKRS,) if "pks" in features else ())):
        half, index = (1024, msr - 0xC000_0000) if msr >= 0xC000_0000 else (0, msr)
        for direction in (0, 2048):
            bitmap[direction + half + index // 8] &= ~(1 << index % 8)
    at = memory.private_page(MSR_BITMAP_PAGE)
    memory.ram.view[at : at + 4096] = bitmap
