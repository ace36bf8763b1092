"""`ring1 compare`: the same guest in each way, its costs side by side."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.images import EXIT, elf64
from vmm.cli.main import main
from vmm.observe.compare import USUAL, compare

# One of each: privileged, sensitive and unprivileged, a hypercall that does not exist.
GUEST = f"""
    mov rsp, 0x90000
    cli
    sub rsp, 16
    sgdt [rsp]
    pushfq
    popfq
    mov rax, cr3
    mov cr3, rax
    cpuid
    mov eax, 9999
    vmcall
    xor eax, eax
    {EXIT}
"""


@pytest.fixture(name="image", scope="module")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "guest.elf"
    path.write_bytes(elf64(GUEST))
    return path


def test_each_way_exits_for_what_it_must(image: Path) -> None:
    found = compare({"image": image, "memory": "16M"})
    assert found.same
    trap, shadow, ept, native = found.runs
    assert [run.way for run in found.runs] == list(USUAL)
    assert len({run.digest for run in found.runs[:3]}) == 1
    assert (native.status, native.exits) == (ept.status, ept.exits), "it makes nothing of it"
    once = {"CLI", "SGDT", "PUSHF", "POPF"}
    assert {name: trap.exits[name] for name in once} == dict.fromkeys(once, 1)
    assert not once & (shadow.exits.keys() | ept.exits.keys())
    assert (trap.exits["CR_ACCESS"], shadow.exits["CR_ACCESS"]) == (2, 2)
    assert "CR_ACCESS" not in ept.exits
    assert [run.exits["CPUID"] for run in found.runs] == [1] * 4
    assert [run.hypercalls for run in found.runs] == [1] * 4
    assert trap.patched == 4  # SGDT, PUSHF, POPF, CPUID
    assert trap.hardware_exits.keys() == {"EXCEPTION_NMI"}
    assert ept.hardware_exits == ept.exits
    assert all(run.walks["walks"] > 0 for run in found.runs)
    for run in found.runs:
        assert sum(run.ledger.values()) == run.cycles


def test_the_table(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(image), "--memory", "16M"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in lines if "│" in line}
    assert [cell.strip() for cell in rows["SGDT"]] == ["1", "-", "-", "-"]
    assert [cell.strip() for cell in rows["hypercalls"]] == ["1"] * 4
    assert len({cell.strip() for cell in rows["digest"][:3]}) == 1, "a dialect has a state too"


def test_json_and_one_way(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(image), "--memory", "16M", "--json", "--way", "vtx+ept"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["same"]) == ("ring1.compare/1", True)
    assert [run["way"] for run in record["runs"]] == ["vtx+ept"]


def test_a_chart_is_the_same_twice(image: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / name for name in ("one.svg", "two.svg")]
    for path in paths:
        assert main(["compare", str(image), "--memory", "16M", "--chart", str(path)]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert ET.fromstring(paths[0].read_bytes()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--way", "hvm"], "--way 'hvm' is not one of"),
        (["--chart", "x.png"], "is no SVG file"),
        (["--chart", "/nowhere/x.svg"], "cannot be written"),
        (["--memory", "lots"], "'lots' is not a size"),
    ],
)
def test_refused_in_one_line(
    image: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(image), *words]) == 64
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
