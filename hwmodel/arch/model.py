"""A CPU model: what a processor is and can do, read from `models/<name>.toml`.

In the file every number is a table `{ value = ..., source = "..." }`. A key that is missing or
unknown, a number without a source and values that contradict each other are refused, with the file
and the key.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from hwmodel.arch.costs import EventCosts
from hwmodel.arch.features import BY_NAME, NEEDS
from hwmodel.arch.sourced import ModelError, SourcedTable
from hwmodel.arch.speculation import ARCH_CAPABILITIES
from hwmodel.arch.toml_lines import Lines
from hwmodel.arch.translation import TranslationCaches
from hwmodel.arch.vmx_model import VmxOffer

MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = "cascade-lake"
_INSTRUCTION = 2
BRAND_BYTES = 47  # leaves 0x80000002 to 0x80000004 hold 48, the last of them 0


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache as leaf 4 tells of it; `kind` is 1 data, 2 instruction, 3 unified."""

    level: int
    kind: int
    ways: int
    sets: int
    line: int
    shared: bool
    """Whether all logical processors share it, or each has its own."""

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.ways * self.sets * self.line


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A processor: identity, address widths, clocks in Hz, features by name, caches, TLBs."""

    name: str
    vendor: str
    brand: str
    family: int
    model: int
    stepping: int
    physical_bits: int
    linear_bits: int
    tsc_hz: int
    crystal_hz: int
    bus_hz: int
    features: frozenset[str]
    immunities: frozenset[str]
    """Names of bits in IA32_ARCH_CAPABILITIES."""
    caches: tuple[Cache, ...]
    translation: TranslationCaches
    vmx: VmxOffer
    costs: EventCosts

    @classmethod
    def load(cls, name: str = DEFAULT_MODEL, folder: Path = MODELS) -> Self:
        """The model of that name. Raises ModelError if there is none, or it makes no sense.

        A name that ends in ".toml" is the path of a file.
        """
        path = Path(name) if is_file(name) else folder / f"{name}.toml"
        if not is_file(name) and name not in names(folder):
            raise ModelError(f"no CPU model {name!r}; there are: {', '.join(names(folder))}")
        try:
            text = path.read_text()
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ModelError(f"{path.name}: not TOML: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from None
        return cls._from(SourcedTable(path.name, "", raw, Lines.of(text)), path.stem)

    @classmethod
    def _from(cls, file: SourcedTable, name: str) -> Self:
        identity, widths = file.section("identity"), file.section("address_bits")
        clocks = file.section("clocks")
        model = cls(
            name=name,
            vendor=identity.text("vendor"),
            brand=identity.text("brand"),
            family=identity.number("family"),
            model=identity.number("model"),
            stepping=identity.number("stepping"),
            physical_bits=widths.number("physical"),
            linear_bits=widths.number("linear"),
            tsc_hz=clocks.number("tsc_hz"),
            crystal_hz=clocks.number("crystal_hz"),
            bus_hz=clocks.number("bus_hz"),
            features=frozenset(f for group in file.rows("features") for f in group.names("names")),
            immunities=frozenset(
                name for group in file.rows("immunities") for name in group.names("names")
            ),
            caches=tuple(_cache(row) for row in file.rows("caches")),
            translation=TranslationCaches.read(file),
            vmx=VmxOffer.read(file),
            costs=EventCosts.read(file),
        )
        for section in (identity, widths, clocks, file):
            section.done()
        model.check(file.file, file.lines)
        return model

    def check(self, file: str, lines: Lines | None = None) -> None:
        """Raise ModelError, naming `file`, line and key, for values that contradict each other."""
        for wrong, complaint in (
            (len(self.vendor) != 12, f"identity.vendor {self.vendor!r} must have 12 characters"),
            (
                len(self.brand) > BRAND_BYTES,
                f"identity.brand has {len(self.brand)} characters; {BRAND_BYTES} fit",
            ),
            (not 6 <= self.family <= 270, f"identity.family {self.family} must be 6 to 270"),
            (not 0 <= self.model <= 255, f"identity.model {self.model} must be 0 to 255"),
            (not 0 <= self.stepping <= 15, f"identity.stepping {self.stepping} must be 0 to 15"),
            (
                not 32 <= self.physical_bits <= 52,
                f"address_bits.physical {self.physical_bits} must be 32 to 52",
            ),
            (
                self.linear_bits != (57 if "la57" in self.features else 48),
                f"address_bits.linear {self.linear_bits} must be 57 with la57, else 48",
            ),
            (
                self.tsc_hz <= 0 or self.crystal_hz <= 0 or self.tsc_hz % self.crystal_hz != 0,
                f"clocks.tsc_hz {self.tsc_hz} must be a multiple of crystal_hz {self.crystal_hz}",
            ),
            *self._feature_complaints(),
        ):
            if wrong:
                place = f"{file}:{_line(lines, complaint)}" if lines else file
                raise ModelError(f"{place}: {complaint}")

    def _feature_complaints(self) -> list[tuple[bool, str]]:
        unknown = [(True, f"features: unknown {name!r}") for name in self.features - set(BY_NAME)]
        unmet = [
            (True, f"features: {name!r} needs {need!r}")
            for name in self.features
            for need in NEEDS.get(name, ())
            if need not in self.features
        ]
        strange = [
            (True, f"immunities: unknown {name!r}")
            for name in self.immunities - set(ARCH_CAPABILITIES)
        ]
        if self.immunities and "arch_capabilities" not in self.features:
            strange.append((True, "immunities: the feature 'arch_capabilities' is missing"))
        return sorted(unknown) + sorted(unmet) + sorted(strange)

    def data_caches(self) -> list[Cache]:
        """The caches that serve data, by level."""
        serving = [cache for cache in self.caches if cache.kind != _INSTRUCTION]
        return sorted(serving, key=lambda cache: cache.level)

    def without(self, *names: str) -> Self:
        """The model without these features. Raises ModelError if another one needs them."""
        return self._changed(self.features - set(names))

    def plus(self, *names: str) -> Self:
        """The model with these features too. Raises ModelError if one is unknown or unmet."""
        return self._changed(self.features | set(names))

    def _changed(self, features: frozenset[str]) -> Self:
        linear = 57 if "la57" in features else 48
        changed = replace(self, features=features, linear_bits=linear)
        changed.check(f"CPU model {self.name}")
        return changed


def is_file(name: str) -> bool:
    """Whether a model is named by its file."""
    return name.endswith(".toml")


def _line(lines: Lines, complaint: str) -> int:
    """Where the key stands that a complaint begins with, or the string that it quotes."""
    path, quoted = complaint.split(maxsplit=1)[0], complaint.split("'")[1:2]
    if path.endswith(":") and quoted:
        return lines.line_of_name(path[:-1], quoted[0])
    return lines.line(path)


def names(folder: Path = MODELS) -> list[str]:
    """The names of all models, in order."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def _cache(row: SourcedTable) -> Cache:
    cache = Cache(
        level=row.integer("level"),
        kind=row.integer("kind"),
        ways=row.integer("ways"),
        sets=row.integer("sets"),
        line=row.integer("line"),
        shared=row.take("shared", bool),
    )
    row.source()
    row.done()
    return cache
