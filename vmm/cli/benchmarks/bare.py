"""The same loops on a bare Unicorn: no hooks, no paging, nothing but its translator."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from vmm.cli.benchmarks.machines import image

_BYTES = 128 << 20
_STACK = 0x9000
_END = 0x8000  # an address that nothing else uses: where the loop returns to

LOOPS = {"mixed": "mixed_loop", "tight": "tight_loop", "loads": "load_loop"}


def on_unicorn(counts: dict[str, int]) -> dict[str, float]:
    """Return CPU seconds a repetition; `counts` are the repetitions of each loop."""
    unicorn: Any = import_module("unicorn")

    path = image("bench_loop.elf")
    symbols = _symbols(path)
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.mem_map(0, _BYTES)
    _load(path, machine)
    _call(machine, symbols["fill_area"], 0)
    return {
        name: _call(machine, symbols[LOOPS[name]], count) / count for name, count in counts.items()
    }


def _call(machine: Any, function: int, argument: int) -> float:
    """Call a function of the image as the guest would; return CPU seconds."""
    x86_const: Any = import_module("unicorn.x86_const")

    machine.mem_write(_STACK, _END.to_bytes(8, "little"))
    machine.reg_write(x86_const.UC_X86_REG_RSP, _STACK)
    machine.reg_write(x86_const.UC_X86_REG_RDI, argument)
    began = time.process_time()
    machine.emu_start(function, _END)
    return time.process_time() - began


def _load(path: Path, machine: Any) -> None:
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            machine.mem_write(segment["p_paddr"], segment.data())


def _symbols(path: Path) -> dict[str, int]:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}
