"""Instructions that the cost table has no row for: they took its default (hwmodel/cpu/pace.py)."""

from collections import Counter
from typing import TYPE_CHECKING

from hwmodel.cpu.pace import UnknownCost

if TYPE_CHECKING:
    from vmm import VM


def unpriced(vm: "VM") -> list[tuple[str, int]]:
    """An instruction of each form, as assembly, and the blocks that have one; most first."""
    found: Counter[str] = Counter()
    for pcpu in vm.pcpus:
        for form in pcpu.pace.unknown_costs():
            found[_text(form)] += form.blocks
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _text(form: UnknownCost) -> str:
    import capstone

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[form.bits])
    for _, _, mnemonic, operands in decoder.disasm_lite(form.code, 0, 1):
        return f"{mnemonic} {operands}".strip()
    return f".byte {form.code.hex(' ')}"
