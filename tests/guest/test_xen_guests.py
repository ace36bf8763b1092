"""The PV guests of ``guest_kernel/tests/xen``: each makes one hypercall right, and wrong in each
way that Xen's public headers and sources have an error for.
"""

from pathlib import Path

import pytest

from vmm import VM

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "guest_kernel/tests/xen").glob("*.c"))
CPUS = {"poll": 4}


def test_there_are_enough() -> None:
    assert len(NAMES) >= 20


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
    text = said.decode()
    assert text.startswith("TEST: ")
    assert "PASS: " in text
    assert "FAIL: " not in text, text
    assert ", 0 failed" in text, (text, result.message)
    assert (result.status, result.reason) == (0, "poweroff")
