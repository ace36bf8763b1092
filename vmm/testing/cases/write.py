"""Cases written down: what failed, so that a debugger and a regression test can have it."""

from collections.abc import Mapping
from typing import Any

from vmm.testing.guest import Guest


def text_of(values: Any) -> str:
    """Return a value in TOML's form."""
    if isinstance(values, bool):
        return str(values).lower()
    if isinstance(values, int):
        return f'"{values:#x}"' if values > 0xFFFF else str(values)
    if isinstance(values, bytes):
        return f'"{values.hex(" ")}"'
    if isinstance(values, Mapping):
        inner = ", ".join(f"{_key(k)} = {text_of(v)}" for k, v in values.items())
        return "{" + inner + "}"
    if isinstance(values, list | tuple):
        return "[" + ", ".join(map(text_of, values)) + "]"
    quoted = str(values).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'


def _key(key: Any) -> str:
    text = f"{key:#x}" if isinstance(key, int) else str(key)
    return text if text.isidentifier() else f'"{text}"'


def case_text(table: Mapping[str, Any], expect: Mapping[str, Any] | None = None) -> str:
    """Return one [[case]]; empty values are left out."""
    lines = ["[[case]]"]
    lines += [f"{key} = {text_of(value)}" for key, value in table.items() if value not in ({}, [])]
    if expect:
        lines.append("[case.expect]")
        lines += [f"{key} = {text_of(value)}" for key, value in expect.items()]
    return "\n".join(lines) + "\n"


def case_of(guest: Guest, name: str) -> str:
    """Return the start of the guest's last run as a case that expects nothing yet.

    The guest is reset: describe its end before.
    """
    env = guest.environment
    code = guest.loaded
    before = {k: v for k, v in guest.before.items() if v and (k, v) != ("rflags", 2)}
    own = set() if code is None else {code.at}
    table: dict[str, Any] = {
        "name": name,
        "mode": str(env.mode),
        "ring": env.ring,
        "paging": str(env.scheme),
        "pages": list(env.pages),
        "bytes": code.code if code is not None else b"\xf4",
        "registers": before,
        "controls": guest.controls,
        "intercept": guest.intercepted,
        "memory": {at: data for at, data in guest.pokes.items() if at not in own},
        "techniques": [guest.technique],
        "limit": guest.limit,
        "options": {k: v for k, v in guest.options.items() if k not in ("technique", "mmu")},
    }
    table["registers"] = before | guest.system_before()
    return case_text(table)
