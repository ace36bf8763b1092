"""The real gdb on Debian's kernel, with the symbols that are inside its image."""

import re
from pathlib import Path

import pytest

from tests.linux.guests import QUICK, initrd_for, kernel_or_skip
from tests.vmm.gdb.conftest import Gdb
from vmm.cli.kernels import Flavour
from vmm.cli.main import main

pytestmark = pytest.mark.oracle

SCRIPT = """
hbreak start_kernel
continue
info threads
break rest_init
continue
bt
delete
tbreak kernel_init
continue
watch *(long*)&jiffies_64
continue
reverse-continue
reverse-stepi
monitor when
monitor backtrace
x/4i $pc
delete
break kernel_init
reverse-continue
bt 1
kill
"""


def test_a_kernel_with_symbols_forwards_and_backwards(gdb: Gdb, tmp_path: Path) -> None:
    kernel = kernel_or_skip(Flavour.CLOUD)
    symbols = tmp_path / "linux.sym"
    assert main(["symbols", "-o", str(symbols), str(kernel.image)]) == 0
    said = gdb(
        SCRIPT, "--initrd", initrd_for(kernel, tmp_path), "--cmdline", QUICK, kernel.image,
        symbols=symbols,
    )  # fmt: skip
    assert re.search(r"Breakpoint 1, 0xf+8\w+ in start_kernel \(\)", said)
    assert "(long64, CPL 0" in said
    assert re.search(r"#0 .* in rest_init \(\)[\s\S]*#2 .* in start_kernel \(\)", said)
    assert re.search(r"breakpoint 3, 0x\w+ in kernel_init \(\)", said)
    changes = re.findall(r"Old value = (\d+)\s+New value = (\d+)\s+0x\w+ in (\w+)", said)
    (old, new, where), (back, again, there) = changes
    assert (int(new), where) == (int(old) + 1, "do_timer")
    assert (back, again, there) == (new, old, "do_timer")
    assert "in the past" in said
    assert re.search(r"#\d+ +0x\w+ tick_periodic\+0x", said)  # by the image's own ORC tables
    assert re.search(r"Breakpoint 5, 0x\w+ in kernel_init \(\)", said)
