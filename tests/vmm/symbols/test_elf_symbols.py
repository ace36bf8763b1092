"""ELF symbols against nm, lines against addr2line, call chains against what the source says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from vmm import VM
from vmm.symbols.guest import GuestNames, backtrace_lines
from vmm.symbols.image import ImageSymbols, Named, read_symbols
from vmm.symbols.table import Alias, Symbol, SymbolTable


def run(*words: str) -> list[str]:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} (binutils) is not installed")
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("name", ["smp.elf", "elf64.elf", "multiboot2.elf"])
def test_every_symbol_of_nm_is_found(images: Path, name: str) -> None:
    symbols = ImageSymbols((images / name).read_bytes())
    listed = [line.split() for line in run("nm", "--defined-only", str(images / name))]
    addresses = {name: int(address, 16) for address, kind, name in listed if kind not in "aA"}
    assert len(addresses) > 30
    found = {symbol.name: symbol.address for symbol in symbols.table.symbols}
    assert found == addresses


@pytest.mark.parametrize("name", ["smp.elf", "elf64.elf", "breakpoints.elf"])
def test_lines_are_those_of_addr2line(images: Path, name: str) -> None:
    image = str(images / name)
    symbols = ImageSymbols((images / name).read_bytes())
    code = [s for s in symbols.table.symbols if s.is_code and s.size > 8]
    asked = [s.address + offset for s in code for offset in (0, s.size // 2, s.size - 1)]
    told = run("addr2line", "-e", image, *(hex(address) for address in asked))
    assert len(told) == len(asked) > 60
    ours = [str(symbols.line_at(address)) for address in asked]
    theirs = [line.partition(" (")[0] for line in told]
    theirs = ["None" if line.endswith(("?", ":0")) else line for line in theirs]
    assert theirs.count("None") < 10
    assert ours == theirs


def test_a_source_line_leads_to_its_code_and_back(images: Path) -> None:
    symbols = ImageSymbols((images / "elf64.elf").read_bytes())
    start = symbols.find("kernel_main")
    assert start is not None
    line = symbols.line_at(start)
    assert line is not None
    for file in (line.file, "lib/main.c", "main.c", "/somewhere/else/guest_kernel/lib/main.c"):
        assert symbols.addresses(file, line.line) == [start]
    assert symbols.addresses("nain.c", line.line) == []
    assert symbols.addresses("main.c", 100_000) == []


def test_names_with_offsets_and_numbers_are_addresses(images: Path) -> None:
    symbols = ImageSymbols((images / "elf64.elf").read_bytes())
    start = symbols.find("kernel_main")
    assert start
    assert symbols.find("kernel_main+0x4") == start + 4
    assert symbols.find("0x1234+4") == 0x1238
    assert symbols.find("no_such_name") is None
    assert symbols.find("kernel_main+rubbish") is None
    assert symbols.text(start + 4).endswith("<kernel_main+0x4>")


def test_a_chain_of_calls_has_its_names(images: Path) -> None:
    with VM(images / "hello.elf") as vm:
        names = GuestNames(vm.config, vm.plan)
        chain, functions = list[Named](), list[str]()
        for _vmexit in vm:
            chain = names.backtrace(vm.current)
            functions = [frame.place.symbol for frame in chain if frame.place]
            if "test_main" in functions:
                break
        middle = functions.index("test_main")
        assert functions[middle + 1 :] == ["kernel_main", "in_long_mode"]
        assert functions[middle - 1] in ("printf", "puts", "putchar", "report")
        assert "hello.c:" in backtrace_lines(chain)[middle]


def test_a_chain_changes_nothing(images: Path) -> None:
    with VM(images / "paging.elf", memory="8M") as vm:
        names = GuestNames(vm.config, vm.plan)
        for count, _ in enumerate(vm):
            if count % 100 == 0:
                before = vm.digest()
                assert names.backtrace(vm.current)
                assert names.where(vm.current)
                assert vm.digest() == before


def test_a_stripped_file_without_lines_has_neither(images: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    run("objcopy", "--strip-all", str(images / "elf64.elf"), str(stripped))
    symbols = ImageSymbols(stripped.read_bytes())
    assert len(symbols) == 0
    assert symbols.line_at(0x100000) is None
    assert symbols.addresses("main.c", 1) == []


@pytest.mark.parametrize("cut", [5, 60, 200, 5000, 20000])
def test_a_truncated_file_is_no_error(images: Path, cut: int) -> None:
    symbols = read_symbols((images / "elf64.elf").read_bytes()[:cut])
    symbols.line_at(0x100000)
    symbols.at(0x100000)


def test_of_several_names_the_first_names_and_gaps_have_none() -> None:
    table = SymbolTable(
        [Symbol("b", 0x1000, 16), Symbol("a", 0x1000, 16), Symbol("last", 0x2000)],
        [Alias(physical=0x9000, virtual=0x1000, size=0x100)],
    )
    assert str(table.at(0x100F)) == "b+0xf"
    assert table.at(0x1010) is None
    assert table.at(0xFFF) is None
    assert str(table.at(0x2000)) == "last"
    assert table.at(0x2000 + (1 << 16)) is None
    assert str(table.at(0x9004)) == "last+0x7004"  # a symbol without a size reaches far
    assert str(SymbolTable(table.symbols[:2], [Alias(0x9000, 0x1000, 0x100)]).at(0x9004)) == "b+0x4"
