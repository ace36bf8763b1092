"""What an exit's qualification means: one Word per reason that has a format of its own.

Where the qualification is no word but a number (the address of INVLPG and of a page fault, the
displacement of a memory operand, the index of a bad MSR entry) it is used as it is. Layouts are in
"Basic VM-Exit Information".
"""

from enum import IntEnum

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.word import Word, bits, field, flag


class CrAccessType(IntEnum):
    """What was done to the control register."""

    MOV_TO_CR = 0
    MOV_FROM_CR = 1
    CLTS = 2
    LMSW = 3


class IoSize(IntEnum):
    """The size of a port access, as encoded: one less than its bytes."""

    BYTE = 0
    WORD = 1
    DWORD = 3


class TaskSwitchSource(IntEnum):
    """What started a task switch."""

    CALL = 0
    IRET = 1
    JMP = 2
    IDT_GATE = 3


class ApicAccessType(IntEnum):
    """How the APIC-access page was touched."""

    LINEAR_READ = 0
    LINEAR_WRITE = 1
    LINEAR_FETCH = 2
    LINEAR_EVENT_DELIVERY = 3
    LINEAR_MONITORING = 4
    PHYSICAL_EVENT_DELIVERY = 10
    PHYSICAL_MONITORING = 11
    PHYSICAL_INSTRUCTION = 15


class EntryFailure(IntEnum):
    """Why the guest state was refused (the qualification of INVALID_STATE is this number)."""

    OTHER = 0
    PDPTE = 2
    NMI_BLOCKED_BY_STI = 3
    VMCS_LINK_POINTER = 4


class DebugException(Word):
    """EXCEPTION_NMI by a debug exception: what DR6 would show."""

    breakpoints = bits(3, 0)
    bus_lock = flag(11)
    debug_register_access = flag(13)
    single_step = flag(14)
    rtm = flag(16)


class Sipi(Word):
    """SIPI_SIGNAL."""

    vector = bits(7, 0)


class TaskSwitch(Word):
    """TASK_SWITCH."""

    selector = bits(15, 0)
    source = field(31, 30, TaskSwitchSource)


class CrAccess(Word):
    """CR_ACCESS; `register` is a general register's hardware number."""

    cr = bits(3, 0)
    access_type = field(5, 4, CrAccessType)
    lmsw_from_memory = flag(6)
    register = bits(11, 8)
    lmsw_source = bits(31, 16)


class MovDr(Word):
    """DR_ACCESS; `register` is a general register's hardware number."""

    dr = bits(2, 0)
    is_read = flag(4)
    register = bits(11, 8)


class Io(Word):
    """IO_INSTRUCTION."""

    size = field(2, 0, IoSize)
    is_in = flag(3)
    string = flag(4)
    rep = flag(5)
    immediate = flag(6)
    port = bits(31, 16)

    @property
    def bytes(self) -> int:
        """How many bytes one access moves: 1, 2 or 4."""
        return self.size + 1


class Mwait(Word):
    """MWAIT_INSTRUCTION."""

    monitor_armed = flag(0)


class ApicAccess(Word):
    """APIC_ACCESS."""

    offset = bits(11, 0)
    access_type = field(15, 12, ApicAccessType)
    asynchronous = flag(16)


class VirtualizedEoi(Word):
    """EOI_INDUCED."""

    vector = bits(7, 0)


class EptViolation(Word):
    """EPT_VIOLATION. `entry_*` is the AND over the EPT entries used, 0 if one was not present."""

    read = flag(0)
    write = flag(1)
    fetch = flag(2)
    entry_readable = flag(3)
    entry_writable = flag(4)
    entry_executable = flag(5)
    entry_user_executable = flag(6)
    linear_address_valid = flag(7)
    final_translation = flag(8)
    """Set for the access itself, clear for an access to a guest paging structure on its way."""
    linear_is_user = flag(9)
    page_is_writable = flag(10)
    page_is_nx = flag(11)
    nmi_unblocked_by_iret = flag(12)
    shadow_stack = flag(13)
    supervisor_shadow_stack = flag(14)
    guest_paging_verification = flag(15)
    asynchronous = flag(16)


class ApicWrite(Word):
    """APIC_WRITE."""

    offset = bits(11, 0)


class PmlFull(Word):
    """PML_FULL."""

    nmi_unblocked_by_iret = flag(12)
    asynchronous = flag(16)


class SppEvent(Word):
    """SPP_EVENT."""

    is_miss = flag(11)
    nmi_unblocked_by_iret = flag(12)
    asynchronous = flag(16)


class Notify(Word):
    """NOTIFY."""

    context_invalid = flag(0)
    nmi_unblocked_by_iret = flag(12)


QUALIFICATION: dict[ExitReason, type[Word]] = {
    ExitReason.EXCEPTION_NMI: DebugException,  # of a #DB; a #PF has the address
    ExitReason.SIPI_SIGNAL: Sipi,
    ExitReason.TASK_SWITCH: TaskSwitch,
    ExitReason.CR_ACCESS: CrAccess,
    ExitReason.DR_ACCESS: MovDr,
    ExitReason.IO_INSTRUCTION: Io,
    ExitReason.MWAIT_INSTRUCTION: Mwait,
    ExitReason.APIC_ACCESS: ApicAccess,
    ExitReason.EOI_INDUCED: VirtualizedEoi,
    ExitReason.EPT_VIOLATION: EptViolation,
    ExitReason.APIC_WRITE: ApicWrite,
    ExitReason.PML_FULL: PmlFull,
    ExitReason.SPP_EVENT: SppEvent,
    ExitReason.NOTIFY: Notify,
}
