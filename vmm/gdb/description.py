"""The XML that gdb asks for: registers, memory map, threads."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final
from xml.sax.saxutils import quoteattr

from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.word import Bits, Word
from vmm.gdb.registers import ALL, CORE, SSE, SYSTEM, VMX, VMX_PARTS, Register
from vmm.memory.guest import GuestMemory

_HEAD: Final = '<?xml version="1.0"?>\n'
_EFLAGS: Final = (
    "CF:0 :1 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21"
)
_MXCSR: Final = "IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 FZ:15"
_VECTOR: Final = """\
  <vector id="v4f" type="ieee_single" count="4"/>
  <vector id="v2d" type="ieee_double" count="2"/>
  <vector id="v16i8" type="int8" count="16"/>
  <vector id="v8i16" type="int16" count="8"/>
  <vector id="v4i32" type="int32" count="4"/>
  <vector id="v2i64" type="int64" count="2"/>
  <union id="vec128">
    <field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
    <field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
    <field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
    <field name="uint128" type="uint128"/>
  </union>
"""


def _flags(name: str, size: int, words: str) -> str:
    fields = []
    for word in words.split():
        label, _, bit = word.rpartition(":")
        fields.append(f'    <field name={quoteattr(label)} start="{bit}" end="{bit}"/>\n')
    return f'  <flags id="{name}" size="{size}">\n{"".join(fields)}  </flags>\n'


def _flags_of(name: str, word: type[Word]) -> str:
    """Make a flags type of a control word: the names are those of the system manual."""
    named = [(label, one) for label, one in vars(word).items() if isinstance(one, Bits)]
    return _flags(name, 8, " ".join(f"{label.upper()}:{one.low}" for label, one in named))


def _types(feature: str) -> str:
    if feature == CORE:
        return _flags("i386_eflags", 4, _EFLAGS)
    if feature == SSE:
        return _VECTOR + _flags("i386_mxcsr", 4, _MXCSR)
    if feature == SYSTEM:
        return _flags_of("x64_cr0", Cr0) + _flags_of("x64_cr4", Cr4) + _flags_of("x64_efer", Efer)
    if feature == VMX:
        fields = [f'    <field name="{part.name}" type="{part.type}"/>\n' for part in VMX_PARTS]
        return f'  <struct id="vmx_fields">\n{"".join(fields)}  </struct>\n'
    return ""


def _register(register: Register, number: int) -> str:
    kind = register.type or f"uint{register.bits}"
    group = f' group="{register.group}"' if register.group else ""
    save = ' save-restore="no"' if register.feature == VMX else ""
    return (
        f'  <reg name="{register.name}" bitsize="{register.bits}" type="{kind}"'
        f' regnum="{number}"{group}{save}/>\n'
    )


def target_xml() -> str:
    """Return the description of the processor: always the 64-bit one."""
    parts = [
        _HEAD,
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n',
        "<architecture>i386:x86-64</architecture>\n",
    ]
    numbered = enumerate(ALL)
    for feature, registers in groupby(numbered, key=lambda pair: pair[1].feature):
        parts.append(f'<feature name="{feature}">\n{_types(feature)}')
        parts += [_register(register, number) for number, register in registers]
        parts.append("</feature>\n")
    return "".join([*parts, "</target>\n"])


_TOP: Final = 1 << 64
_FOUR_GIB: Final = 1 << 32
_BIOS: Final = (0xE_0000, 0x10_0000)
"""Where a PC has its firmware: our ACPI tables."""


def memory_map_xml(memory: GuestMemory) -> str:
    """Return where memory is. Devices are absent, so that gdb does not even ask for them.

    gdb's addresses are linear ones, and paging decides what they are: all above the first four GiB
    is "ram", below that what RAM there is. `set mem inaccessible-by-default off` opens the rest.
    """
    ends = [(slot.gpa, slot.gpa + slot.size) for slot in memory.slots if slot.gpa < _FOUR_GIB]
    regions = [(start, min(end, _FOUR_GIB), "ram") for start, end in ends]
    regions = [*_without(regions, _BIOS), (*_BIOS, "rom"), (_FOUR_GIB, _TOP, "ram")]
    lines = [
        f'  <memory type="{kind}" start="{start:#x}" length="{end - start:#x}"/>\n'
        for start, end, kind in sorted(regions)
    ]
    return (
        _HEAD + '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
        '"http://sourceware.org/gdb/gdb-memory-map.dtd">\n'
        f"<memory-map>\n{''.join(lines)}</memory-map>\n"
    )


def _without(
    regions: list[tuple[int, int, str]], hole: tuple[int, int]
) -> Iterable[tuple[int, int, str]]:
    for start, end, kind in regions:
        if start < min(end, hole[0]):
            yield start, min(end, hole[0]), kind
        if max(start, hole[1]) < end:
            yield max(start, hole[1]), end, kind


def threads_xml(rows: Sequence[tuple[str, int, str, str]]) -> str:
    """Return the virtual CPUs: (thread id, physical CPU, name, what it does)."""
    lines = [
        f'  <thread id="{thread}" core="{core}" name={quoteattr(name)}>{_text(extra)}</thread>\n'
        for thread, core, name, extra in rows
    ]
    return f"{_HEAD}<threads>\n{''.join(lines)}</threads>\n"


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
