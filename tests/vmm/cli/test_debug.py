"""`ring1 debug --commands`: verbs from a file, as text and as JSON."""

import json
from pathlib import Path

import pytest

from tests.images import OFF, elf64
from vmm.cli.main import main

GUEST = f"""
    mov rsp, 0x300000
    mov ecx, 4
again:
    push rcx
    mov eax, 0x40000000
    cpuid
    pop rcx
    mov [0x200000 + rcx * 8], rcx
    loop again
    {OFF}
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64(GUEST))
    return path


def debug(
    image: Path, capsys: pytest.CaptureFixture[str], *lines: str, options: tuple[str, ...] = ()
) -> tuple[int, str, str]:
    commands = image.with_name("commands")
    commands.write_text("\n".join(lines))
    words = ["debug", "--commands", str(commands), "--memory", "4M", *options, str(image)]
    status = main(words)
    seen = capsys.readouterr()
    return status, seen.out, seen.err


def answers(
    image: Path, capsys: pytest.CaptureFixture[str], *lines: str
) -> list[dict[str, object]]:
    status, out, _ = debug(image, capsys, *lines, options=("--json",))
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


def test_verbs_print_text(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = debug(
        image, capsys, "# a comment", "exit-break leaf=0x40000000 & n>=2", "continue", "regs",
        "disas $rip 1", "rstep", "quit", "nonsense",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "exit breakpoint 1: exit 2 <CPUID" in out
    assert "rax 0x0000000040000000" in out
    assert "cpuid" in out


def test_verbs_answer_programs(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answers(
        image, capsys, "goto exit 3", "finish", "changed GUEST_RIP", "lastwrite 0x200018", "when",
        "x $rsp 16", "exit prev", "goto instruction 5", "when", "goto cycle 7", "vmcs diff",
        "walk $rip", "continue", "digest",
    )  # fmt: skip
    assert (said[0]["exit"], said[0]["open"], said[0]["reason"]) == (3, True, "CPUID")
    assert said[1]["open"] is False
    assert (said[2]["field"], said[2]["exit"], said[2]["open"]) == ("GUEST_RIP", 3, False)
    assert (said[3]["stop"], said[3]["address"], said[3]["write"]) == (
        "watchpoint", 0x20_0018, True,
    )  # fmt: skip
    assert said[8]["instructions"] == 5
    cycle = said[9]["cycle"]
    assert isinstance(cycle, int)
    assert cycle >= 7, "the first instruction boundary from there on"
    assert said[12]["ended"] == "halted"


def test_what_is_wrong_is_one_line_that_names_the_place(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = debug(image, capsys, "when", "exit-break reason=CPUID & porter")
    assert status == 64
    assert err.count("\n") == 1
    assert "commands:2: condition 'reason=CPUID & porter', column 16" in err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("jump", "no verb 'jump'"),
        ("break", "break where?"),
        ("break nowhere", "no number and no symbol"),
        ("break 0xffffff0000 physical", "are no memory"),
        ("watch 0x1000 0", "watches nothing"),
        ("delete 7", "no breakpoint 7"),
        ("goto moon 3", "no point of a run"),
        ("step -3", "negative"),
        ("step vcpu 5", "no vCPU 5"),
        ("changed NOTHING", "no such VMCS field"),
        ("exits rax=3", "asks for registers"),
        ("x 0x800000000000", "not mapped"),
        ("regs 'unclosed", "cannot be read"),
    ],
)
def test_bad_lines_are_answered_and_the_next_one_goes_on(
    image: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    said = answers(image, capsys, "exit next", line, "when")
    assert words in str(said[1]["error"])
    assert said[2]["exit"] == 1


def test_a_terminal_or_a_file_is_needed(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", str(image)]) == 64
    assert main(["debug", "--json", str(image)]) == 64
    assert main(["debug", "--commands", "/nowhere", str(image)]) == 64
    assert capsys.readouterr().err.count("\n") == 3


def test_explain_tells_of_exits_walks_entries_and_hangs_and_leaves_no_trace(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answers(
        image, capsys, "exit-break n>=2", "continue", "when", "digest", "explain exit",
        "explain walk 0x200000 write", "explain walk gpa:0x200000", "explain entry", "explain hang",
        "when", "digest", "finish", "explain exit", "exit prev", "digest",
    )  # fmt: skip
    exit_told, walk, gpa, entry, hang = told[4:9]
    assert told[2:4] == told[9:11]  # the same moment, the same digest
    story, effects = exit_told["exit"], exit_told["effects"]
    assert isinstance(story, dict)
    assert isinstance(effects, dict)
    assert story["name"] == "CPUID"
    assert effects["registers"]["rip"] == [story["rip"], story["rip"] + 2]
    assert told[12]["exit"] == story  # behind its handler, too
    assert walk["steps"]
    assert gpa["is_physical"] is True
    assert entry["passes"] is True
    assert hang["stuck"] is False
    assert told[14] == told[3]


def test_explain_looks_ahead_from_a_beginning_that_a_search_came_to(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answers(
        image, capsys, "exit-break reason=CPUID", "continue", "lastwrite 0x2ff000", "explain hang"
    )
    assert told[2]["stop"] == "begin"
    assert told[3]["stuck"] is False


def test_explain_refuses_in_one_line(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ("explain", "write explain entry"),
        ("explain exit", "no exit yet"),
        ("explain walk 0 sideways", "'sideways'"),
    ):
        status, _, err = debug(image, capsys, words)
        assert status == 64, words
        assert said in err
        assert err.count("\n") == 1
