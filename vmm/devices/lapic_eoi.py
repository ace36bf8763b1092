"""When the end of an interrupt has no effect but its own."""

from vmm.devices.lapic_registers import Reg, RegisterPage


def ends_silently(page: RegisterPage) -> bool:
    """Whether an interrupt is in service whose end is for nobody else: edge-triggered, and no
    request waits that it could let through.
    """
    vector = page.highest(Reg.ISR)
    if vector < 0 or page.highest(Reg.IRR) >= 0:
        return False
    return not page.test_bit(Reg.TMR, vector)
