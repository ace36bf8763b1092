"""The PV guests of ``guest_kernel/tests/xen``: each makes one hypercall right, and wrong in each
way that Xen's public headers and sources have an error for.
"""

from pathlib import Path

import pytest

from vmm import VM

PAGE = 4096
ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "guest_kernel/tests/xen").glob("*.c"))
CPUS = {"poll": 4}


def test_there_are_enough() -> None:
    assert len(NAMES) >= 20


def pages_that_a_snapshot_lacks(vm: VM) -> list[int]:
    """Whoever writes to machine memory has to say so: a snapshot looks at what was said."""
    pages, ram = vm.snapshot().pages, vm.memory.ram.view
    empty = bytes(PAGE)
    frames = range(vm.memory.size // PAGE)
    return [n for n in frames if pages.get(n, empty) != ram[n * PAGE : (n + 1) * PAGE]]


@pytest.mark.parametrize("name", NAMES)
def test_passes(name: str, images: Path) -> None:
    said = bytearray()
    with VM(
        images / f"xen_{name}.elf", technique="pv", memory="16M", serial_output=said.extend,
        max_instructions=20_000_000, reboot=False, cpus=CPUS.get(name, 1),
    ) as vm:  # fmt: skip
        result = vm.run()
        assert vm.domain is not None
        assert vm.domain.engine.audit()[0] == 0
        assert not pages_that_a_snapshot_lacks(vm)
    text = said.decode()
    assert text.startswith("TEST: ")
    assert "PASS: " in text
    assert "FAIL: " not in text, text
    assert ", 0 failed" in text, (text, result.message)
    assert (result.status, result.reason) == (0, "poweroff")
