"""Events: vectors, error codes, the interruption-information words, and what blocks an event.

Layouts are in "Exception and Interrupt Reference", "VM-Entry Controls for Event Injection",
"Information for VM Exits Due to Vectored Events" and "Guest Non-Register State".
"""

from enum import IntEnum

from hwmodel.arch.word import Word, bits, field, flag


class Vector(IntEnum):
    """The vectors that the architecture gives a meaning, by the manual's mnemonic."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21

    @property
    def has_error_code(self) -> bool:
        """Whether the exception pushes an error code (outside real mode)."""
        return self in _WITH_ERROR_CODE

    @property
    def is_contributory(self) -> bool:
        """Whether two of its kind make a double fault ("Interrupt 8, Double Fault Exception")."""
        return self in _CONTRIBUTORY


_WITH_ERROR_CODE = frozenset(
    {Vector.DF, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.AC, Vector.CP}
)
_CONTRIBUTORY = frozenset({Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.CP})


class SelectorErrorCode(Word):
    """The error code of #TS, #NP, #SS, #GP: which descriptor, and whether delivery caused it."""

    external = flag(0)
    idt = flag(1)
    ldt = flag(2)
    index = bits(15, 3)


class PageFaultCode(Word):
    """The error code of #PF."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    reserved_bit = flag(3)
    fetch = flag(4)
    protection_key = flag(5)
    shadow_stack = flag(6)
    hlat = flag(7)
    sgx = flag(15)


class EventType(IntEnum):
    """What kind of event an interruption-information word tells of."""

    EXTERNAL_INTERRUPT = 0
    RESERVED = 1
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6
    OTHER = 7


class InterruptionInformation(Word):
    """VM-entry and VM-exit interruption information, and IDT-vectoring information."""

    vector = bits(7, 0)
    type = field(10, 8, EventType)
    has_error_code = flag(11)
    nmi_unblocked_by_iret = flag(12)
    """VM-exit interruption information only: IRET had lifted the blocking of NMIs."""
    valid = flag(31)


class AccessRights(Word):
    """A segment's access rights as the VMCS keeps them."""

    type = bits(3, 0)
    s = flag(4)
    dpl = bits(6, 5)
    p = flag(7)
    avl = flag(12)
    l = flag(13)  # noqa: E741  the manual's name
    db = flag(14)
    g = flag(15)
    unusable = flag(16)


class Interruptibility(Word):
    """What keeps events from the guest."""

    blocking_by_sti = flag(0)
    blocking_by_mov_ss = flag(1)
    blocking_by_smi = flag(2)
    blocking_by_nmi = flag(3)
    enclave = flag(4)


class ActivityState(IntEnum):
    """Whether the logical processor executes instructions, and what it waits for."""

    ACTIVE = 0
    HLT = 1
    SHUTDOWN = 2
    WAIT_FOR_SIPI = 3


class PendingDebug(Word):
    """Debug exceptions that wait for the end of a shadow."""

    breakpoints = bits(3, 0)
    bus_lock = flag(11)
    enabled_breakpoint = flag(12)
    single_step = flag(14)
    rtm = flag(16)
