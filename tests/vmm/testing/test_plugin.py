"""The plugin as its users have it: pytest runs of its own, in folders of their own."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONFTEST = 'pytest_plugins = ["vmm.testing.plugin"]\n'
TESTS = """
import pytest

@pytest.mark.guest(mode="prot32", ring=3, techniques="all")
def test_held_every_way(vm):
    vm.asm("nop; ud2")
    vm.run()
    assert vm.fault.vector == 6

@pytest.mark.guest(technique="svm")
def test_not_built(vm):
    raise AssertionError

def test_fails(vm):
    vm.asm("mov eax, 5; cpuid; add eax, ebx")
    vm.memory[0x20000] = 7
    vm.run()
    assert vm.regs.rax == 1

def test_does_not_assemble(vm):
    vm.asm("mov eax, bogus!")

@pytest.mark.guest(limit=500)
def test_never_ends(vm):
    vm.asm("top: cpuid\\njmp top")
    vm.run()
"""
CASES = """
[[case]]
name = "add carries"
ring = 3
code = "add rax, rbx"
registers = {rax = "0xffffffffffffffff", rbx = 1}
expect = {registers = {rax = 0}, flags = {cf = 1, zf = 1}}
[[case]]
name = "no page"
ring = 3
pages = ["0x301000 none"]
code = "mov eax, [0x301000]"
expect = {fault = {vector = "#PF", error = 4, address = 0x301000}}
[[case]]
name = "wrong"
code = "cpuid"
techniques = ["vtx"]
expect = {registers = {rax = 1}, exits = [{reason = "CPUID", instruction_length = 3}]}
"""


def run(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_cases.toml").write_text(CASES)
    return tmp_path


def test_a_whole_run(folder: Path) -> None:
    output = run(folder, "--exit-coverage", "--exit-trace", "traces", "--junitxml", "j.xml")
    assert "4 failed, 9 passed, 1 skipped" in output, output
    for text in (
        "mov eax, bogus!' does not assemble in 64-bit code: Invalid operand",
        "did not end within 500 instructions",
        "replay: ring1 debug .ring1/test_fails.toml",
        "0f a2                          cpuid",
        "rax is 0x16, expected 0x1",
        "instruction_length is 0x2, expected 0x3",
        "EXCEPTION_NMI", "missing: ", "52 reasons",
    ):  # fmt: skip
        assert text in output, output
    report = ET.parse(folder / "j.xml").getroot()
    traces = [p.get("value") for p in report.iter("property") if p.get("name") == "perfetto"]
    assert "traces/test_fails.perfetto" in traces
    assert (folder / "traces/test_fails.perfetto").stat().st_size > 100


def test_a_failure_is_a_case_that_the_debugger_takes(folder: Path) -> None:
    run(folder, "-k", "test_fails")
    (folder / "verbs").write_text("step\nregs\n")
    command = [
        sys.executable,
        "-m",
        "vmm",
        "debug",
        "--commands",
        "verbs",
        ".ring1/test_fails.toml",
    ]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "rax 0x0000000000000005" in done.stdout, done.stdout + done.stderr


def test_parallel_runs_add_up(folder: Path) -> None:
    output = run(folder, "-n", "2", "--exit-coverage", "99")
    assert "4 failed, 9 passed, 1 skipped" in output, output
    assert "below the 99 %" in output
    assert "CPUID                    1 of   1" in output


def test_coverage_below_a_threshold_fails(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "carries"]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    for percent, status in (("0.5", 0), ("50", 1)):
        done = subprocess.run(
            [*command, "--exit-coverage", percent], cwd=folder, env=env, check=False,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == status, done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[case]]\ncode='nop'\nmoed='long64'", "unknown key 'moed'; the keys are name, mode"),
        ("[[case]]\ncode='nop'\nregisters={rxa=1}", "'rxa' is no register"),
        ("[[case]]\ncode='nop'\nexpect={registers={xmm99=1}}", "'xmm99' is no register"),
        ("[[case]]\ncode='nop'\nexpect={flags={qf=1}}", "unknown key 'qf'"),
        ("[[case]]\ncode='nop'\nbytes='90'", "give code or bytes"),
        ("[[case]]\nbytes='9'", "'9' are no bytes"),
        ("[[case]]\ncode='nop'\nmode='mode7'", "'mode7' is not a valid Mode"),
        ("[[case]]\ncode='nop'\nexpect={exits=[{reason='NONE'}]}", "'NONE' is no exit reason"),
        ("[[case]]\ncode='nop'\nlimit='x'", "'x' is not a number"),
        ("[[case]]\ncode='nop'\ntechniques=['kvm']", "technique 'kvm' is not one of"),
        ("[case]\ncode='nop'", "two brackets"),
        ("case = [", "not TOML"),
    ],
)
def test_bad_case_files(tmp_path: Path, text: str, message: str) -> None:
    from vmm.errors import UsageError
    from vmm.testing.cases.case import read_cases

    path = tmp_path / "test_bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_cases(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_file_leaves_the_others_alone(folder: Path) -> None:
    (folder / "test_bad.toml").write_text("[[case]]\ncode = 'nop'\nmoed = 'x'\n")
    output = run(folder, "-k", "carries", "--continue-on-collection-errors")
    assert "unknown key 'moed'" in output
    assert "3 passed" in output
    assert "1 error" in output
