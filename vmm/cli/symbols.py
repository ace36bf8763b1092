"""`ring1 symbols IMAGE`: the symbols that an image has inside, for gdb and for reading."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def symbols(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A kernel: ELF or bzImage.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write an ELF file of symbols for gdb.")
    ] = None,
) -> int:
    """Show the symbols of a kernel, also of a stripped Linux that has them in its kallsyms.

    With -o FILE they become a file for gdb: target remote :1234, symbol-file FILE.
    """
    from vmm.boot.files import symbol_file as image_file
    from vmm.config import Config
    from vmm.errors import UsageError
    from vmm.symbols.image import read_symbols
    from vmm.symbols.write import symbol_file

    found = read_symbols(image_file(Config(image=image))).table.symbols
    if not found:
        raise UsageError(f"{image} has no symbols inside; give a kernel that is not stripped")
    if output is None:
        for symbol in found:
            sys.stdout.write(
                f"{symbol.address:016x} {'t' if symbol.is_code else 'd'} {symbol.name}\n"
            )
        return 0
    try:
        output.write_bytes(symbol_file(found))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--output {output}: {reason}; name a file that can be written") from None
    print(f"ring1: {len(found):,} symbols in {output}", file=sys.stderr)
    return 0
