"""Numbers of Xen's public headers (public/xen.h, errno.h, arch-x86/xen.h)."""

from enum import IntEnum
from typing import Final


class Errno(IntEnum):
    """public/errno.h: a hypercall returns one of them, negative."""

    PERM = 1
    NOENT = 2
    SRCH = 3
    TOOBIG = 7
    NOMEM = 12
    ACCES = 13
    FAULT = 14
    BUSY = 16
    EXIST = 17
    INVAL = 22
    NOSPC = 28
    NOSYS = 38
    NODATA = 61
    TIME = 62
    OPNOTSUPP = 95


class Call(IntEnum):
    """Hypercalls, public/xen.h."""

    SET_TRAP_TABLE = 0
    MMU_UPDATE = 1
    SET_GDT = 2
    STACK_SWITCH = 3
    SET_CALLBACKS = 4
    FPU_TASKSWITCH = 5
    SCHED_OP_COMPAT = 6
    PLATFORM_OP = 7
    SET_DEBUGREG = 8
    GET_DEBUGREG = 9
    UPDATE_DESCRIPTOR = 10
    MEMORY_OP = 12
    MULTICALL = 13
    UPDATE_VA_MAPPING = 14
    SET_TIMER_OP = 15
    EVENT_CHANNEL_OP_COMPAT = 16
    XEN_VERSION = 17
    CONSOLE_IO = 18
    PHYSDEV_OP_COMPAT = 19
    GRANT_TABLE_OP = 20
    VM_ASSIST = 21
    UPDATE_VA_MAPPING_OTHERDOMAIN = 22
    IRET = 23
    VCPU_OP = 24
    SET_SEGMENT_BASE = 25
    MMUEXT_OP = 26
    XSM_OP = 27
    NMI_OP = 28
    SCHED_OP = 29
    CALLBACK_OP = 30
    XENOPROF_OP = 31
    EVENT_CHANNEL_OP = 32
    PHYSDEV_OP = 33
    HVM_OP = 34
    SYSCTL = 35
    DOMCTL = 36
    KEXEC_OP = 37
    TMEM_OP = 38
    ARGO_OP = 39
    XENPMU_OP = 40
    DM_OP = 41
    HYPFS_OP = 42


class Virq(IntEnum):
    """Virtual interrupts of a domU."""

    TIMER = 0
    DEBUG = 1
    XENOPROF = 7
    XENPMU = 13


NR_VIRQS: Final = 24
DOMID_SELF: Final = 0x7FF0
OWN_DOMID, BACKEND_DOMID = 1, 0
HOLE_START, HOLE_END = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000
VERSION: Final = 4, 20
PAGE: Final = 4096
MASK64: Final = (1 << 64) - 1


def is_self(domid: int) -> bool:
    """Whether a domain identifier means the guest."""
    return domid in (DOMID_SELF, OWN_DOMID)
