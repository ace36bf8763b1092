"""Files of at most 400 lines, functions of at most 40; past that a room is missing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = 400
FUNCTION_LINES = 40

GENERATED = {"cext/vmcs_fields.h"}
# Longer than the rule allows, each with its reason. Shorten the list, do not lengthen it.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

C_HEAD = re.compile(r"^[A-Za-z_].*?\b(\w+)\([^;]*$")


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Each function with the lines of its body, docstring not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            code = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if code and code[-1].end_lineno is not None:
                yield node.name, code[-1].end_lineno - code[0].lineno + 1


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Each function with the lines from its opening brace to its closing one."""
    name, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if head := C_HEAD.match(line):
            name = head[1]
        if name and not start and (line == "{" or (head and line.endswith("{"))):
            start = number
        elif line.startswith("}"):
            if name and start:
                yield name, number - start + 1
            name, start = "", 0


def functions(path: Path) -> Iterator[tuple[str, int]]:
    if path.suffix == ".py":
        return python_functions(path.read_text())
    return c_functions(path.read_text()) if path.suffix in {".c", ".h"} else iter(())


def relative(paths: list[Path], root: Path) -> list[str]:
    names = (path.relative_to(root).as_posix() for path in paths)
    return [name for name in names if name not in GENERATED]


def test_no_file_is_too_long(tracked: list[Path], root: Path) -> None:
    code = [path for path in tracked if path.suffix in {".py", ".pyi", ".c", ".h", ".S"}]
    lengths = {name: len((root / name).read_text().splitlines()) for name in relative(code, root)}
    too_long = {n: k for n, k in lengths.items() if k > FILE_LINES and n not in LONG_FILES}
    assert too_long == {}
    assert [n for n in LONG_FILES if lengths.get(n, 0) <= FILE_LINES] == [], "no longer long"


def test_no_function_is_too_long(tracked: list[Path], root: Path) -> None:
    lengths = {
        f"{name}:{function}": lines
        for name in relative(tracked, root)
        for function, lines in functions(root / name)
    }
    long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}
    assert {n: k for n, k in long.items() if n not in LONG_FUNCTIONS} == {}
    assert [name for name in LONG_FUNCTIONS if name not in long] == [], "no longer long"


@pytest.mark.parametrize("lines", [3, 60])
def test_lengths_are_measured(lines: int) -> None:
    body = "    x = 1;\n" * (lines - 2)
    assert list(c_functions(f"static int f(int a,\n    int b)\n{{\n{body}}}\n")) == [("f", lines)]
    assert list(c_functions(f"int g(void) {{\n{body}}}\n")) == [("g", lines)]
    text = 'def h():\n    """One\n\n    two."""\n' + "    x = 1\n" * (lines - 1)
    assert list(python_functions(text)) == [("h", lines - 1)]
