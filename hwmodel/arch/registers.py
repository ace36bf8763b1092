"""The processor's control words: CR0, CR4, EFER, RFLAGS, DR6, DR7, as the system manual names them.

The bits are those of "Control Registers", "Extended Feature Enable Register", "System Flags and
Fields in the EFLAGS Register" and "Debug Registers".
"""

from hwmodel.arch.word import Word, bits, flag


class Cr0(Word):
    """Control register 0."""

    pe = flag(0)
    mp = flag(1)
    em = flag(2)
    ts = flag(3)
    et = flag(4)
    ne = flag(5)
    wp = flag(16)
    am = flag(18)
    nw = flag(29)
    cd = flag(30)
    pg = flag(31)


class Cr4(Word):
    """Control register 4."""

    vme = flag(0)
    pvi = flag(1)
    tsd = flag(2)
    de = flag(3)
    pse = flag(4)
    pae = flag(5)
    mce = flag(6)
    pge = flag(7)
    pce = flag(8)
    osfxsr = flag(9)
    osxmmexcpt = flag(10)
    umip = flag(11)
    la57 = flag(12)
    vmxe = flag(13)
    smxe = flag(14)
    fsgsbase = flag(16)
    pcide = flag(17)
    osxsave = flag(18)
    kl = flag(19)
    smep = flag(20)
    smap = flag(21)
    pke = flag(22)
    cet = flag(23)
    pks = flag(24)
    uintr = flag(25)


class Efer(Word):
    """IA32_EFER; SVME and FFXSR are AMD's."""

    sce = flag(0)
    lme = flag(8)
    lma = flag(10)
    nxe = flag(11)
    svme = flag(12)
    lmsle = flag(13)
    ffxsr = flag(14)


class Rflags(Word):
    """The flags register; bit 1 (`always_1`) is never 0."""

    cf = flag(0)
    always_1 = flag(1)
    pf = flag(2)
    af = flag(4)
    zf = flag(6)
    sf = flag(7)
    tf = flag(8)
    if_ = flag(9)
    df = flag(10)
    of_ = flag(11)
    iopl = bits(13, 12)
    nt = flag(14)
    rf = flag(16)
    vm = flag(17)
    ac = flag(18)
    vif = flag(19)
    vip = flag(20)
    id = flag(21)


class Dr6(Word):
    """Debug status register. Bits 4-10 and others without a name read as 1."""

    b0 = flag(0)
    b1 = flag(1)
    b2 = flag(2)
    b3 = flag(3)
    bus_lock_clear = flag(11)
    bd = flag(13)
    bs = flag(14)
    bt = flag(15)
    rtm_clear = flag(16)


class Dr7(Word):
    """Debug control register; bit 10 (`always_1`) is never 0."""

    l0 = flag(0)
    g0 = flag(1)
    l1 = flag(2)
    g1 = flag(3)
    l2 = flag(4)
    g2 = flag(5)
    l3 = flag(6)
    g3 = flag(7)
    le = flag(8)
    ge = flag(9)
    always_1 = flag(10)
    rtm = flag(11)
    gd = flag(13)
    rw0 = bits(17, 16)
    len0 = bits(19, 18)
    rw1 = bits(21, 20)
    len1 = bits(23, 22)
    rw2 = bits(25, 24)
    len2 = bits(27, 26)
    rw3 = bits(29, 28)
    len3 = bits(31, 30)


class ApicBase(Word):
    """IA32_APIC_BASE."""

    bsp = flag(8)
    x2apic = flag(10)
    enabled = flag(11)
    frame = bits(51, 12)


GENERAL = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{number}" for number in range(8, 16)),
)
"""The general registers, by hardware number."""

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
"""The segment registers, in the order of the VMCS (the first six also by hardware number)."""
