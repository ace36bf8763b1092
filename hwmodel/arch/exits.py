"""Every reason for a VM exit: number, the kernel's name, the manual's name.

The names are those of Linux's uapi/asm/vmx.h without EXIT_REASON_; where the kernel has none, the
manual's in the kernel's style ("VMX Basic Exit Reasons"). What an exit's qualification means is in
`qualification.py`.
"""

from enum import IntEnum
from typing import Self

from hwmodel.arch.word import Word, bits, flag


class ExitReason(IntEnum):
    """A basic exit reason; `manual` is the manual's name for it."""

    manual: str

    def __new__(cls, number: int, manual: str = "") -> Self:
        """Keep the manual's name beside the number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.manual = manual
        return member

    @property
    def is_trap_like(self) -> bool:
        """Whether RIP is past the instruction at the exit, so that none is to be skipped."""
        return self in _TRAP_LIKE

    @property
    def is_entry_failure(self) -> bool:
        """Whether the VM entry failed, so that no guest instruction ran."""
        return self in _ENTRY_FAILURES

    EXCEPTION_NMI = 0, "Exception or NMI"
    EXTERNAL_INTERRUPT = 1, "External interrupt"
    TRIPLE_FAULT = 2, "Triple fault"
    INIT_SIGNAL = 3, "INIT signal"
    SIPI_SIGNAL = 4, "Start-up IPI"
    IO_SMI = 5, "I/O SMI"
    OTHER_SMI = 6, "Other SMI"
    INTERRUPT_WINDOW = 7, "Interrupt window"
    NMI_WINDOW = 8, "NMI window"
    TASK_SWITCH = 9, "Task switch"
    CPUID = 10, "CPUID"
    GETSEC = 11, "GETSEC"
    HLT = 12, "HLT"
    INVD = 13, "INVD"
    INVLPG = 14, "INVLPG"
    RDPMC = 15, "RDPMC"
    RDTSC = 16, "RDTSC"
    RSM = 17, "RSM"
    VMCALL = 18, "VMCALL"
    VMCLEAR = 19, "VMCLEAR"
    VMLAUNCH = 20, "VMLAUNCH"
    VMPTRLD = 21, "VMPTRLD"
    VMPTRST = 22, "VMPTRST"
    VMREAD = 23, "VMREAD"
    VMRESUME = 24, "VMRESUME"
    VMWRITE = 25, "VMWRITE"
    VMOFF = 26, "VMXOFF"
    VMON = 27, "VMXON"
    CR_ACCESS = 28, "Control-register access"
    DR_ACCESS = 29, "MOV DR"
    IO_INSTRUCTION = 30, "I/O instruction"
    MSR_READ = 31, "RDMSR"
    MSR_WRITE = 32, "WRMSR"
    INVALID_STATE = 33, "VM-entry failure due to invalid guest state"
    MSR_LOAD_FAIL = 34, "VM-entry failure due to MSR loading"
    MWAIT_INSTRUCTION = 36, "MWAIT"
    MONITOR_TRAP_FLAG = 37, "Monitor trap flag"
    MONITOR_INSTRUCTION = 39, "MONITOR"
    PAUSE_INSTRUCTION = 40, "PAUSE"
    MCE_DURING_VMENTRY = 41, "VM-entry failure due to machine-check event"
    TPR_BELOW_THRESHOLD = 43, "TPR below threshold"
    APIC_ACCESS = 44, "APIC access"
    EOI_INDUCED = 45, "Virtualized EOI"
    GDTR_IDTR = 46, "Access to GDTR or IDTR"
    LDTR_TR = 47, "Access to LDTR or TR"
    EPT_VIOLATION = 48, "EPT violation"
    EPT_MISCONFIG = 49, "EPT misconfiguration"
    INVEPT = 50, "INVEPT"
    RDTSCP = 51, "RDTSCP"
    PREEMPTION_TIMER = 52, "VMX-preemption timer expired"
    INVVPID = 53, "INVVPID"
    WBINVD = 54, "WBINVD or WBNOINVD"
    XSETBV = 55, "XSETBV"
    APIC_WRITE = 56, "APIC write"
    RDRAND = 57, "RDRAND"
    INVPCID = 58, "INVPCID"
    VMFUNC = 59, "VMFUNC"
    ENCLS = 60, "ENCLS"
    RDSEED = 61, "RDSEED"
    PML_FULL = 62, "Page-modification log full"
    XSAVES = 63, "XSAVES"
    XRSTORS = 64, "XRSTORS"
    PCONFIG = 65, "PCONFIG"
    SPP_EVENT = 66, "SPP-related event"
    UMWAIT = 67, "UMWAIT"
    TPAUSE = 68, "TPAUSE"
    LOADIWKEY = 69, "LOADIWKEY"
    ENCLV = 70, "ENCLV"
    ENQCMD_PASID_FAILURE = 72, "ENQCMD PASID translation failure"
    ENQCMDS_PASID_FAILURE = 73, "ENQCMDS PASID translation failure"
    BUS_LOCK = 74, "Bus lock"
    NOTIFY = 75, "Instruction timeout"
    SEAMCALL = 76, "SEAMCALL"
    TDCALL = 77, "TDCALL"
    RDMSRLIST = 78, "RDMSRLIST"
    WRMSRLIST = 79, "WRMSRLIST"
    URDMSR = 80, "URDMSR"
    UWRMSR = 81, "UWRMSR"
    MSR_READ_IMM = 84, "RDMSR (immediate)"
    MSR_WRITE_IMM = 85, "WRMSRNS (immediate)"


_TRAP_LIKE = frozenset(
    {
        ExitReason.TPR_BELOW_THRESHOLD,
        ExitReason.EOI_INDUCED,
        ExitReason.APIC_WRITE,
        ExitReason.BUS_LOCK,
    }
)
_ENTRY_FAILURES = frozenset(
    {ExitReason.INVALID_STATE, ExitReason.MSR_LOAD_FAIL, ExitReason.MCE_DURING_VMENTRY}
)


class ExitReasonWord(Word):
    """The whole exit-reason field ("Format of Exit Reason")."""

    basic = bits(15, 0)
    shadow_stack_busy = flag(25)
    bus_lock_asserted = flag(26)
    enclave_mode = flag(27)
    pending_mtf = flag(28)
    from_vmx_root = flag(29)
    entry_failure = flag(31)
