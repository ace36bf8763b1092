"""The guest kernels under ring1: every row of ``guest_kernel/tests/tests.toml`` that names it.

A check that fails must be listed in the row's ``[test.ring1] defects`` with the reason beside it.
A listed check that passes fails the test too: the list only says what is wrong today.
"""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from vmm import VM, Result

ROOT = Path(__file__).resolve().parents[2]
ROWS = tomllib.loads((ROOT / "guest_kernel/tests/tests.toml").read_text())["test"]
RING1_ROWS = [row for row in ROWS if "ring1" in row["runs_on"]]
MOST_INSTRUCTIONS = 500_000_000
MOST_WILD_INSTRUCTIONS = 1_000_000  # a wild guest that finds a loop stays in it
WILD_STATUSES = {0, 66, 68}  # or odd: it found the exit port


def name_of(row: dict[str, Any]) -> str:
    """Test identity: the image and the words of its command line."""
    return "-".join([row["image"], *row["cmdline"].split()])


def boot(row: dict[str, Any], images: Path, most: int) -> tuple[Result, str]:
    """How the run ended, and what the guest printed."""
    serial = bytearray()
    with VM(
        images / row["image"],
        memory=row["memory"],
        cpus=row.get("cpus", 1),
        dialects=row.get("dialects"),
        cmdline=row.get("ring1", {}).get("cmdline", row["cmdline"]),
        serial_output=serial.extend,
        max_instructions=most,
        reboot=False,
    ) as vm:
        vm.pcpu.check_always()  # whatever an exit saves can be entered again
        result = vm.run()
    return result, serial.decode(errors="replace").replace("\r", "")


def verdicts(output: str, word: str) -> set[str]:
    """The names of the checks with this verdict."""
    prefix = word + ": "
    return {line.removeprefix(prefix) for line in output.splitlines() if line.startswith(prefix)}


def steady(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] != "any"]


@pytest.mark.parametrize("row", steady(RING1_ROWS), ids=name_of)
def test_passes(row: dict[str, Any], images: Path) -> None:
    result, output = boot(row, images, MOST_INSTRUCTIONS)
    defects = set(row.get("ring1", {}).get("defects", []))
    failed = verdicts(output, "FAIL")
    assert f"TEST: {row['title']}" in output, result.message
    assert failed == defects, output[-4000:]
    assert not verdicts(output, "ABORT")
    wanted = row.get("ring1", {}).get("status", row["status"])
    assert result.status == (3 if failed else wanted), result.message or output[-2000:]
    if wanted == 1 and not row.get("silent"):
        assert verdicts(output, "PASS")
        assert "SUMMARY: " in output


@pytest.mark.parametrize("row", [row for row in RING1_ROWS if row["status"] == "any"], ids=name_of)
def test_a_wild_guest_ends_with_a_reason(row: dict[str, Any], images: Path) -> None:
    result, output = boot(row, images, MOST_WILD_INSTRUCTIONS)
    assert f"TEST: {row['title']}" in output
    assert result.status in WILD_STATUSES or result.status % 2
    if result.status == 66:
        assert "RIP 0x" in result.message
        assert result.last_exits


def test_named_defects_exist(images: Path) -> None:
    """A defect names a check that is really in the image, so that a renamed check is noticed."""
    for row in RING1_ROWS:
        content = (images / row["image"]).read_bytes()
        for defect in row.get("ring1", {}).get("defects", []):
            name = defect if defect.encode() in content else defect.split(": ", 1)[-1]
            assert name.encode() in content, f"{row['image']}: {defect}"
