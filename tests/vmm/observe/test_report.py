"""`ring1 report`: one page that stands alone, and says what the statistics say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.images import elf64
from tests.vmm.observe.trace.traced import ONE_OF_EACH, record
from vmm.cli.main import main
from vmm.observe.report.gather import Report, gather
from vmm.observe.report.page import page
from vmm.observe.trace.records import opened


class Reader(HTMLParser):
    """Tables by their heading; whether every element is closed; what a browser would fetch."""

    EMPTY = ("meta", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.columns = 0
        self._heading = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag == "meta":
            return
        self.open.append(tag)
        self.columns += tag == "rect"
        if tag == "h2":
            self._heading = ""
        if tag == "tr":
            self.tables.setdefault(self._heading, []).append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self._heading += data
        if self.open and "tr" in self.open and self.open[-1] in ("code", "th"):
            self.tables[self._heading][-1].append(data)


def reported(tmp_path: Path) -> Report:
    record(ONE_OF_EACH, tmp_path / "t.ring")
    with opened(tmp_path / "t.ring") as trace:
        return gather(trace, symbol=lambda rip: f"<script>{rip:#x}")


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_it_counts_what_happened(tmp_path: Path) -> None:
    _, ledger, _ = record(ONE_OF_EACH, tmp_path / "u.ring")
    report = reported(tmp_path)
    assert dict(report.exits) == {name: cost.count for name, cost in ledger.exits.items()}
    assert sum(sum(slot.values()) for slot in report.over_time) == sum(report.exits.values())
    assert report.ledger == ledger.as_dict()
    assert report.exit_cycles["IO_INSTRUCTION"] >= ledger.exits["IO_INSTRUCTION"].cycles
    found = {(t.kind, t.name): (t.device, t.reads, t.writes) for t in report.targets}
    assert found[("port", "0x80")] == ("post", 0, 4)
    assert found[("address", "0xfee00020")] == ("lapic", 1, 0)
    assert found[("MSR", "0x277")] == ("", 1, 1)


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = page(reported(tmp_path))
    read = Reader(text)
    assert read.open == []
    assert read.fetched == []
    assert "<script>" not in text  # not even from a symbol's name
    assert not re.search(r"https?://|@import|url\(", text)
    assert read.tables["Exits by reason"][1][:2] == ["IO_INSTRUCTION", "4"]
    assert read.tables["Hottest exit sites"][1][0].startswith("<script>0x1000")
    assert [row[0] for row in read.tables["Where the cycles went"]][:2] == ["heading", "guest"]
    assert read.columns > 10


def test_on_the_command_line(images: Path, tmp_path: Path) -> None:
    """Sites have names where the image has symbols."""
    out = tmp_path / "r.html"
    assert (
        main(["report", "-o", str(out), "--serial-file", "/dev/null", str(images / "hello.elf")])
        == 0
    )
    read = Reader(out.read_text())
    sites = [row[0] for row in read.tables["Hottest exit sites"][1:]]
    assert any(re.match(r"[a-z_]+\+0x", site) for site in sites)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_guest_without_exits() -> None:
    text = page(Report("x", 1, 1, "vtx", "fast"))
    assert "No exits." in text
    assert Reader(text).open == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["-o", "/nowhere/r.html"], "--output '/nowhere/r.html' cannot be written"),
        (["--trace", "t.txt"], "leave out --trace"),
        (["-o", "/dev/full"], "no space left on device"),
    ],
)
def test_bad_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str
) -> None:
    image = tmp_path / "guest"
    image.write_bytes(elf64(ONE_OF_EACH))
    assert main(["report", *words, "--memory", "16M", str(image)]) == 64
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1
