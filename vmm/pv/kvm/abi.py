"""The numbers of KVM's dialect, each table with its source; guests get them by `make abi`."""

from enum import IntEnum
from typing import Final

SIGNATURE: Final = b"KVMKVMKVM\0\0\0"
"""EBX, ECX, EDX of the first leaf. Linux Documentation/virt/kvm/x86/cpuid.rst."""
TIMING_LEAF: Final = 0x10
"""TSC and bus frequency in kHz. QEMU target/i386/kvm/kvm.c (vmware-cpuid-freq); VMware's proposal
"Hypervisor CPUID Interface" of 2008."""


class Feature(IntEnum):
    """Bits of EAX in leaf +1. Linux uapi/asm/kvm_para.h (KVM_FEATURE_*)."""

    CLOCKSOURCE = 0
    NOP_IO_DELAY = 1
    MMU_OP = 2
    CLOCKSOURCE2 = 3
    ASYNC_PF = 4
    STEAL_TIME = 5
    PV_EOI = 6
    PV_UNHALT = 7
    PV_TLB_FLUSH = 9
    ASYNC_PF_VMEXIT = 10
    PV_SEND_IPI = 11
    POLL_CONTROL = 12
    PV_SCHED_YIELD = 13
    ASYNC_PF_INT = 14
    MSI_EXT_DEST_ID = 15
    HC_MAP_GPA_RANGE = 16
    MIGRATION_CONTROL = 17
    CLOCKSOURCE_STABLE_BIT = 24


class Hint(IntEnum):
    """Bits of EDX in leaf +1. Linux uapi/asm/kvm_para.h (KVM_HINTS_*)."""

    REALTIME = 0


class KvmMsr(IntEnum):
    """Linux uapi/asm/kvm_para.h (MSR_KVM_*); what each does: Documentation/virt/kvm/x86/msr.rst."""

    WALL_CLOCK = 0x11
    SYSTEM_TIME = 0x12
    WALL_CLOCK_NEW = 0x4B564D00
    SYSTEM_TIME_NEW = 0x4B564D01
    ASYNC_PF_EN = 0x4B564D02
    STEAL_TIME = 0x4B564D03
    PV_EOI_EN = 0x4B564D04
    POLL_CONTROL = 0x4B564D05
    ASYNC_PF_INT = 0x4B564D06
    ASYNC_PF_ACK = 0x4B564D07
    MIGRATION_CONTROL = 0x4B564D08


class Call(IntEnum):
    """Linux uapi/linux/kvm_para.h (KVM_HC_*); Documentation/virt/kvm/x86/hypercalls.rst."""

    VAPIC_POLL_IRQ = 1
    MMU_OP = 2
    FEATURES = 3
    KICK_CPU = 5
    CLOCK_PAIRING = 9
    SEND_IPI = 10
    SCHED_YIELD = 11
    MAP_GPA_RANGE = 12


class Error(IntEnum):
    """What a hypercall returns, negated. Linux uapi/linux/kvm_para.h (KVM_E*)."""

    PERM = 1
    TOO_BIG = 7
    FAULT = 14
    INVAL = 22
    OPNOTSUPP = 95
    NOSYS = 1000
