"""Who may import what from outside: Unicorn, the C module, host time and chance.

What our own rooms may import of each other is import-linter's business (`lint-imports`).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

UNICORN = {"hwmodel/cpu/unicorn.py"}
HOST = {"time", "random", "secrets", "datetime", "threading", "uuid", "asyncio", "multiprocessing"}
# What tests, measures and explores a machine is no part of one.
DOOR = ("vmm/cli/", "vmm/testing/", "vmm/explore/")


def imported(text: str) -> Iterator[str]:
    """The full names of all modules imported, wherever in the file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(tracked: list[Path], root: Path) -> Iterator[tuple[str, str]]:
    for path in tracked:
        name = path.relative_to(root).as_posix()
        if path.suffix == ".py" and name.startswith(("vmm/", "hwmodel/")):
            yield from ((name, module) for module in imported(path.read_text()))


def test_one_module_imports_unicorn(tracked: list[Path], root: Path) -> None:
    importers = {n for n, module in imports(tracked, root) if module.split(".")[0] == "unicorn"}
    assert importers <= UNICORN


def test_only_the_machine_uses_the_c_module(tracked: list[Path], root: Path) -> None:
    users = {n for n, module in imports(tracked, root) if module.startswith("hwmodel._native")}
    assert {name for name in users if not name.startswith("hwmodel/")} == set()


def test_host_time_and_chance_enter_by_the_front_door(tracked: list[Path], root: Path) -> None:
    used = [(name, m) for name, m in imports(tracked, root) if m.split(".")[0] in HOST]
    assert [(name, m) for name, m in used if not name.startswith(DOOR)] == []


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("import unicorn.x86_const", "unicorn.x86_const"),
        ("def f():\n    from time import sleep", "time.sleep"),
        ("from hwmodel import _native", "hwmodel._native"),
    ],
)
def test_every_form_of_import_is_seen(text: str, module: str) -> None:
    assert module in list(imported(text))
