"""A case as it stands in a TOML file.

    [[case]]
    name = "add carries"                # every other key may be left out
    mode = "long64"                     # real16 prot16 prot32 compat32 long64
    ring = 3
    paging = "4level"                   # none 32bit pae 4level 5level
    pages = ["0x300000 ru"]             # see vmm.testing.paging
    code = "add rax, rbx"               # or bytes = "4801d8"
    registers = {rax = "0xffffffffffffffff", rbx = 1, xmm1 = "0x10"}
    memory = {"0x20000" = "00 11 22"}
    controls = {mov_dr_exiting = 1}     # execution controls; intercept = [6] for exceptions
    techniques = ["vtx", "trap"]        # all that are built, if left out
    limit = 1000
    [case.expect]
    registers = {rax = 0}
    flags = {cf = 1, zf = 1}
    memory = {"0x20000" = "00"}
    fault = {vector = 14, error = 6, address = "0x301000"}   # or "none", the default
    exits = [{reason = "HLT"}]          # all of them, in order; compared under vtx
    reason = "halted"

Numbers may be strings, as "0x10". What is not expected is not compared. Every fault of the file is
a UsageError of one line.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.vmx.state import GPR_NAMES
from vmm.errors import UsageError
from vmm.testing.environment import Environment, Mode
from vmm.testing.fault import NAMES
from vmm.testing.holds import BUILT, options_of
from vmm.testing.paging import Scheme
from vmm.testing.registers import BREAKPOINTS, SYSTEM

FLAGS: Final = {
    "cf": 0, "pf": 2, "af": 4, "zf": 6, "sf": 7, "tf": 8, "if": 9, "df": 10, "of": 11, "nt": 14,
    "rf": 16, "vm": 17, "ac": 18, "vif": 19, "vip": 20, "id": 21,
}  # fmt: skip
_VECTORS: Final = {name: vector for vector, name in NAMES.items()}
XMM: Final = tuple(f"xmm{n}" for n in range(16))
REGISTERS: Final = (*GPR_NAMES, "rip", "rflags", *SYSTEM, *BREAKPOINTS, *XMM)
_EXIT_KEYS: Final = (
    "reason", "qualification", "instruction_length", "guest_linear", "guest_physical",
    "interruption_info", "interruption_error", "rip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case ends with; what is None is not compared."""

    registers: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    memory: Mapping[int, bytes] = field(default_factory=dict)
    fault: Mapping[str, int] | None = None
    exits: Sequence[Mapping[str, int]] | None = None
    reason: str = "halted"


@dataclass(frozen=True, slots=True)
class Case:
    """One case, checked."""

    name: str
    environment: Environment
    code: str | bytes
    registers: Mapping[str, int]
    memory: Mapping[int, bytes]
    controls: Mapping[str, int]
    intercept: Sequence[int]
    techniques: Sequence[str]
    limit: int | None
    options: Mapping[str, Any]
    expect: Expected


def read_cases(path: Path) -> list[Case]:
    """Return the cases of a file. Raises UsageError naming file and case."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: {reason}; give a file of cases") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    _no_others(str(path), content, ("case",))
    tables = content.get("case", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: write [[case]], with two brackets")
    return [_Reader(f"{path.name}: case {n}", table).case() for n, table in enumerate(tables, 1)]


def _no_others(where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}; the keys are {', '.join(known)}")


_KEYS: Final = (
    "name", "mode", "ring", "paging", "pages", "code", "bytes", "registers", "memory", "controls",
    "intercept", "techniques", "limit", "options", "expect",
)  # fmt: skip


class _Reader:
    """Reads one table."""

    def __init__(self, where: str, table: Mapping[str, Any]) -> None:
        self.table = table
        self.where = f"{where} ({table['name']})" if "name" in table else where

    def case(self) -> Case:
        _no_others(self.where, self.table, _KEYS)
        get = self.table.get
        if ("code" in self.table) == ("bytes" in self.table):
            raise UsageError(f"{self.where}: give code or bytes, one of them")
        code: str | bytes = (
            str(get("code")) if "code" in self.table else self.hex(self.table["bytes"])
        )
        techniques = tuple(get("techniques", BUILT))
        for name in techniques:
            options_of(name)
        return Case(
            str(get("name", self.where)), self.environment(), code,
            self.registers(get("registers", {})), self.memory(get("memory", {})),
            dict(get("controls", {})), tuple(map(self.vector, get("intercept", ()))), techniques,
            None if "limit" not in self.table else self.number(self.table["limit"]),
            dict(get("options", {})), self.expected(get("expect", {})),
        )  # fmt: skip

    def environment(self) -> Environment:
        get = self.table.get
        try:
            paging = None if "paging" not in self.table else Scheme(self.table["paging"])
            mode = Mode(get("mode", Mode.LONG64))
        except ValueError as error:
            raise UsageError(f"{self.where}: {error}; see vmm.testing.environment") from None
        try:
            return Environment(mode, self.number(get("ring", 0)), paging, tuple(get("pages", ())))
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None

    def expected(self, table: Mapping[str, Any]) -> Expected:
        where = f"{self.where}: expect"
        _no_others(where, table, tuple(item.name for item in fields(Expected)))
        flags = {name: self.number(value) for name, value in table.get("flags", {}).items()}
        _no_others(f"{where}.flags", flags, tuple(FLAGS))
        exits = table.get("exits")
        return Expected(
            self.registers(table.get("registers", {})), flags, self.memory(table.get("memory", {})),
            self.fault(table.get("fault", "none")),
            None if exits is None else tuple(map(self.exit, exits)),
            str(table.get("reason", "halted")),
        )  # fmt: skip

    def fault(self, given: Any) -> Mapping[str, int] | None:
        if given == "none":
            return None
        table = given if isinstance(given, dict) else {"vector": given}
        _no_others(f"{self.where}: expect.fault", table, ("vector", "error", "address", "rip"))
        return {k: self.vector(v) if k == "vector" else self.number(v) for k, v in table.items()}

    def exit(self, table: Mapping[str, Any]) -> Mapping[str, int]:
        _no_others(f"{self.where}: expect.exits", table, _EXIT_KEYS)
        found = {k: self.number(v) for k, v in table.items() if k != "reason"}
        try:
            return found | {"reason": int(ExitReason[table["reason"]])}
        except KeyError:
            raise UsageError(
                f"{self.where}: {table.get('reason')!r} is no exit reason; see ring1 --help"
            ) from None

    def registers(self, table: Mapping[str, Any]) -> Mapping[str, int]:
        for name in table:
            if name not in REGISTERS:
                raise UsageError(f"{self.where}: {name!r} is no register; use rax, rip, xmm0, cr0")
        return {name: self.number(value) for name, value in table.items()}

    def memory(self, table: Mapping[str, Any]) -> Mapping[int, bytes]:
        return {self.number(at): self.hex(data) for at, data in table.items()}

    def vector(self, value: Any) -> int:
        return _VECTORS[value] if value in _VECTORS else self.number(value)

    def number(self, value: Any) -> int:
        try:
            return int(value, 0) if isinstance(value, str) else int(value)
        except (ValueError, TypeError):
            raise UsageError(
                f"{self.where}: {value!r} is not a number; write 16 or '0x10'"
            ) from None

    def hex(self, value: Any) -> bytes:
        try:
            return bytes.fromhex(value)
        except (ValueError, TypeError):
            raise UsageError(f"{self.where}: {value!r} are no bytes; write '0f 0b'") from None
