"""A TOML table in which every number names its source, and no key goes unread.

family = { value = 6, source = "where the 6 comes from" }
"""

from typing import TypeVar

from hwmodel.arch.toml_lines import Lines

T = TypeVar("T")


class ModelError(ValueError):
    """A model file that does not exist or makes no sense: one line, with file, line and key."""


class SourcedTable:
    """A table that knows where it stands (`file`, `path`); reading a key takes it out.

    Every method raises ModelError for a key that is missing or of the wrong type.
    """

    def __init__(
        self, file: str, path: str, table: dict[str, object], lines: Lines | None = None
    ) -> None:
        self.file, self.path, self.table = file, path, dict(table)
        self.lines = lines or Lines()

    def error(self, key: str, complaint: str) -> ModelError:
        """The error that says what is wrong with `key`, and where that is."""
        path = f"{self.path}.{key}".strip(".")
        return ModelError(f"{self.file}:{self.lines.line(path)}: {path} {complaint}")

    def take(self, key: str, kind: type[T]) -> T:
        """The value of `key`, which must be exactly of this type."""
        if key not in self.table:
            raise self.error(key, "is missing")
        value = self.table.pop(key)
        if type(value) is not kind:
            raise self.error(key, f"must be a {kind.__name__}, not {value!r}")
        return value

    def section(self, key: str) -> "SourcedTable":
        """The table under `key`."""
        path = f"{self.path}.{key}".strip(".")
        return SourcedTable(self.file, path, self.take(key, dict), self.lines)

    def rows(self, key: str) -> list["SourcedTable"]:
        """The tables of the array under `key`."""
        path = f"{self.path}.{key}".strip(".")
        rows = enumerate(self.take(key, list))
        return [SourcedTable(self.file, f"{path}[{index}]", row, self.lines) for index, row in rows]

    def text(self, key: str) -> str:
        """A string."""
        return self.take(key, str)

    def integer(self, key: str) -> int:
        """A number whose source stands elsewhere in the table."""
        return self.take(key, int)

    def number(self, key: str) -> int:
        """A number with its own source."""
        table = self.section(key)
        value = table.integer("value")
        table.source()
        table.done()
        return value

    def names(self, key: str) -> list[str]:
        """A list of strings, with one source for the table it stands in."""
        found = [str(name) for name in self.take(key, list)]
        self.source()
        self.done()
        return found

    def source(self) -> None:
        """Take the table's source. Raises ModelError if it says nothing."""
        if not self.take("source", str).strip():
            raise self.error("source", "is empty: say where the number comes from")

    def done(self) -> None:
        """Raise ModelError if a key was not taken: nobody knows it."""
        for key in self.table:
            raise self.error(key, "is unknown")
