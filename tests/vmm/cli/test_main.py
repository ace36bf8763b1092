"""Commands, and how errors leave: one line, the right status, no traceback."""

from pathlib import Path

import pytest

from vmm.cli.main import main
from vmm.cli.unbuilt import UNBUILT


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the one line of a refusal with status 64."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (64, "", 1)
    assert err.startswith("ring1: ")
    return err


@pytest.mark.parametrize("name", UNBUILT)
def test_what_is_not_built_refuses_in_one_sentence(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert f"ring1 {name}" in refused(capsys, name)
    assert "not built yet" in refused(capsys, name, "--help", "--any", "thing")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope"], "nope"),
        (["--nope"], "--nope"),
        (["run", "--nope"], "--nope"),
        (["run", "--nope"], "see ring1 run --help"),
        (["explain"], "see ring1 explain --help"),
        (["run", "--memory"], "--memory"),
        (["run", "--memory", "many"], "many"),
        (["run", "--memory", "4K"], "4K"),
        (["run", "--cpus", "x"], "x"),
        (["run", "--cpus", "0"], "--cpus 0"),
        (["run", "--timeout", "-1"], "--timeout"),
        (["run", "--max-cycles", "0"], "--max-cycles"),
        (["run", "--technique", "magic"], "magic"),
        (["run", "--technique", "svm"], "not built yet"),
        (["run", "--dialect", "hyperv"], "not built yet"),
        (["run", "--dialect", "kvm,-nonsense"], "nonsense"),
        (["run", "--dialect", "wmk"], "none"),
        (["run", "--gdb", "host"], "[HOST:]PORT"),
        (["run", "--wait"], "--gdb PORT"),
        (["run", "--gdb", "99999999999999999999999999"], "[HOST:]PORT"),
        (["run", "--trace", "t.json"], "no ending"),
        (["run", "--disk", "d,format=vmdk"], "is not one of raw, qcow2"),
        (["run", "a", "b"], "b"),
    ],
)
def test_bad_words(capsys: pytest.CaptureFixture[str], words: list[str], named: str) -> None:
    assert named in refused(capsys, *words)


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "--help"]])
def test_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    assert "Usage: ring1" in capsys.readouterr().out


def test_every_option_of_the_design_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--help"])
    text = capsys.readouterr().out
    options = """
        technique mmu dialect cpus memory cmdline initrd disk net timing cpu-model trace stats
        max-cycles max-instructions timeout serial-file gdb wait no-reboot verbose
    """
    for option in options.split():
        assert f"--{option}" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ring1 ")


def test_bad_files_name_the_thing_and_cost_nothing(ring1: object, tmp_path: Path) -> None:
    assert callable(ring1)
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a kernel\n")
    image = tmp_path / "good"
    image.write_bytes(b"\xfa\xf4")
    for words in (
        [tmp_path / "missing"],
        [tmp_path / "empty"],
        [tmp_path / "text"],
        [tmp_path],
        ["/dev/zero"],
        [image, "--initrd", tmp_path / "missing"],
        [image, "--serial-file", tmp_path / "no" / "file"],
        [image, "--serial-file", tmp_path],
        [image, "--stats", tmp_path / "no" / "file"],
        [image, "--stats", tmp_path],
    ):
        done = ring1("run", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1), words
        assert str(words[-1]) in done.stderr
        assert "; " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "good", "text"]


def test_an_error_of_ours_is_one_line_and_70(ring1: object, image: Path) -> None:
    assert callable(ring1)
    done = ring1("run", image, scenario="crash")
    assert (done.returncode, done.stderr.count("\n")) == (70, 1)
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in ring1("run", "-vv", image, scenario="crash").stderr


def test_a_closed_stdout_is_no_error(start: object) -> None:
    assert callable(start)
    process = start("--help", scenario="quiet")
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_doctor_answers_whatever_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    out, err = capsys.readouterr()
    assert status in (0, 70)
    assert "python" in out
    assert (status == 0) == (err == "")
