"""On which line of a TOML file a key stands: the standard library's reader does not tell."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

_ROW: Final = re.compile(r"\[\[\s*([\w.]+)\s*\]\]")
_SECTION: Final = re.compile(r"\[\s*([\w.]+)\s*\]")
_KEY: Final = re.compile(r"(\w+)\s*=")
_NAME: Final = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines (from 1) by path: `identity.family`, `tlb[2].ways`; and of the strings of lists."""

    keys: dict[str, int] = field(default_factory=dict)
    names: dict[tuple[str, str], int] = field(default_factory=dict)
    """By the table and the string."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read the layout that the model files have: one key a line, arrays over several."""
        lines, path = cls(), ""
        counts: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if found := _ROW.match(line):
                counts[found[1]] = counts.get(found[1], -1) + 1
                path = f"{found[1]}[{counts[found[1]]}]"
                lines.keys[path] = number
            elif found := _SECTION.match(line):
                path = found[1]
                lines.keys[path] = number
            elif found := _KEY.match(line):
                lines.keys[f"{path}.{found[1]}".strip(".")] = number
            for name in _NAME.findall(line):
                lines.names.setdefault((path, name), number)
        return lines

    def line(self, path: str) -> int:
        """Return the line of a key; of what it would stand in, where it is missing."""
        while path and path not in self.keys:
            path = path.rpartition(".")[0]
        return self.keys.get(path, self.keys.get(f"{path}[0]", 1))

    def line_of_name(self, path: str, name: str) -> int:
        """Return the line of a string in a list of table `path`, or of any of its rows."""
        for (table, string), number in self.names.items():
            if string == name and table.split("[")[0] == path.split("[")[0] and path in table:
                return number
        return self.line(path if path in self.keys else f"{path}[0]")
