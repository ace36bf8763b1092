"""Debian's memtest86+ 6: no operating system, but VGA text, keyboard, ACPI and all processors."""

import os
import re
from pathlib import Path

import pytest

from vmm import VM
from vmm.cli.packages import PackageError, fetch
from vmm.observe.screen import capture

MOST_INSTRUCTIONS = 4_000_000_000


@pytest.fixture(scope="session")
def memtest() -> Path:
    try:
        folder = fetch("memtest86+")
    except PackageError as error:
        if os.environ.get("RING1_LINUX") == "required":
            pytest.fail(f"RING1_LINUX=required, but {error}")
        pytest.skip(str(error))
    found = sorted(folder.rglob("memtest86+x64.bin"))
    if not found:
        pytest.skip("this release of memtest86+ has no 64-bit image")
    return found[0]


@pytest.mark.slow
def test_its_test_loop_runs(memtest: Path) -> None:
    """Enter starts it; after a while some of its tests have found no error."""
    seen: set[str] = set()

    def look() -> bytes:
        text = capture(vm).text()
        seen.update(re.findall(r"Test #(\d+)", text))
        if len(seen) > 2:
            vm.interrupt("interrupted")
        return b"\r" if "<Enter> to start testing" in text else b""

    with VM(
        memtest, memory="16M", cpus=2, screen=True, poll_input=look,
        max_instructions=MOST_INSTRUCTIONS,
    ) as vm:  # fmt: skip
        result = vm.run()
        text = capture(vm).text()
    assert result.reason == "interrupted", (result.message, text)
    assert re.search(r"Errors: 0\b", text), text
    assert "2 Cores" in text
    assert re.search(r"CLK/Temp: 25\d\dMHz", text)
