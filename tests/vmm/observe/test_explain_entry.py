"""`ring1 explain entry`: every check with its values, and what an entry would do."""

from pathlib import Path

import pytest

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.checks import CHECKS
from vmm import VM
from vmm.boot.files import demo_image
from vmm.cli.explain import FAILED
from vmm.cli.main import main
from vmm.observe.entry import explain_entry


@pytest.fixture(name="image")
def _image(tmp_path: Path) -> str:
    path = tmp_path / "hello.elf"
    path.write_bytes(demo_image())
    return str(path)


def test_it_tells_of_every_check(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "entry", image, "--memory", "16M"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for check in CHECKS:
        assert f"  pass  {check.name}: {check.text}" in lines
    assert lines[-1] == "The entry succeeds."


def test_it_says_which_check_fails_and_how(image: str) -> None:
    with VM(image, memory="16M") as vm:
        vm.current.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] = 3
        lines = list(explain_entry(vm.current))
        assert (
            "The entry fails by blocking_sti_and_mov_ss: exit INVALID_STATE, qualification 0"
            in lines
        )
        shown = next(n for n, line in enumerate(lines) if "blocking_sti_and_mov_ss:" in line)
        assert lines[shown].startswith("  FAIL")
        assert "GUEST_INTERRUPTIBILITY_INFO=0x3" in lines[shown + 1]
        assert vm.run().status == FAILED


def test_a_bad_number_is_refused(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "entry", image, "--after", "-3"]) == 64
    assert "--after -3" in capsys.readouterr().err
