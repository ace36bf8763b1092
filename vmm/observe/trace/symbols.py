"""The names that KVM's trace events print (Linux arch/x86/kvm/trace.h and lapic's apicdef.h)."""

from typing import Final

APIC_REGISTERS: Final = {
    0x020: "APIC_ID", 0x030: "APIC_LVR", 0x080: "APIC_TASKPRI", 0x090: "APIC_ARBPRI",
    0x0A0: "APIC_PROCPRI", 0x0B0: "APIC_EOI", 0x0C0: "APIC_RRR", 0x0D0: "APIC_LDR",
    0x0E0: "APIC_DFR", 0x0F0: "APIC_SPIV", 0x100: "APIC_ISR", 0x180: "APIC_TMR",
    0x200: "APIC_IRR", 0x280: "APIC_ESR", 0x300: "APIC_ICR", 0x310: "APIC_ICR2",
    0x320: "APIC_LVTT", 0x330: "APIC_LVTTHMR", 0x340: "APIC_LVTPC", 0x350: "APIC_LVT0",
    0x360: "APIC_LVT1", 0x370: "APIC_LVTERR", 0x380: "APIC_TMICT", 0x390: "APIC_TMCCT",
    0x3E0: "APIC_TDCR", 0x3F0: "APIC_SELF_IPI", 0x400: "APIC_EFEAT", 0x410: "APIC_ECTRL",
}  # fmt: skip
DELIVERY_MODES: Final = ("Fixed", "LowPrio", "SMI", "Res3", "NMI", "INIT", "SIPI", "ExtINT")
SHORTHANDS: Final = ("dst", "self", "all", "all-but-self")
EXCEPTIONS: Final = {
    0: "#DE", 1: "#DB", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS",
    11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
}  # fmt: skip
EMULATION_MODES: Final = {16: "prot16", 32: "prot32", 64: "prot64"}
EXIT_FLAGS: Final = ((1 << 31, "FAILED_VMENTRY"), (1 << 30, "0x40000000"))


def symbolic(names: dict[int, str], number: int) -> str:
    """What __print_symbolic prints: the name, or the number in hexadecimal."""
    return names.get(number) or f"0x{number:x}"
