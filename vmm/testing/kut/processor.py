"""The processor that a test asks for by `-cpu NAME,+feature,-feature,vendor=...,phys-bits=N`.

QEMU's names say little here: the first of our models, the default one first, that is of the wanted
maker and has every feature that the test adds and only some models have, is taken. What the test
takes away the model loses, and what needs it too; a narrower physical address is kept.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwmodel.arch.features import BY_NAME, NEEDS
from hwmodel.arch.model import DEFAULT_MODEL, MODELS, CpuModel, names

_WORTH_A_MODEL: Final = frozenset({"pks", "la57"})
_TEST_FEATURES: Final = {"pks": ("pks",), "la57": ("la57",)}
"""Tests whose feature a machine `-cpu max` has, and only one of our models."""
_LISTS: Final = re.compile(r"^names = \[[^\]]*\]", re.MULTILINE)
_PHYSICAL: Final = re.compile(r"^(physical = \{ value = )\d+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Processor:
    """One of our models, and what is changed in it."""

    model: str = DEFAULT_MODEL
    without: frozenset[str] = frozenset()
    physical_bits: int | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the model's own file is not what is wanted."""
        return bool(self.without) or self.physical_bits is not None

    def file(self, folder: Path) -> str:
        """Return what `--cpu-model` takes: a name, or a file made in `folder`."""
        if not self.is_changed:
            return self.model
        text = (MODELS / f"{self.model}.toml").read_text(encoding="utf-8")
        text = _LISTS.sub(lambda found: self._without(found[0]), text)
        if self.physical_bits is not None:
            text = _PHYSICAL.sub(rf"\g<1>{self.physical_bits}", text)
        path = folder / f"{self.model}.toml"  # its costs are found by its name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def _without(self, text: str) -> str:
        for name in self.without:
            text = re.sub(rf'"{name}"(?:, )?', "", text)
        return text.replace(", ]", "]")


def processor_for(stem: str, wanted: str) -> Processor:
    """Return the processor for an image, from the value of `-cpu` ("": none was given)."""
    words = wanted.split(",")[1:]
    needs = {_ours(word) for word in words if word.startswith("+")} & _WORTH_A_MODEL
    needs |= set(_TEST_FEATURES.get(stem, ()))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    model = _model_with(needs, given.get("vendor"))
    lost = {_ours(word) for word in words if word.startswith("-")}
    bits = given.get("phys-bits", "")
    return Processor(
        model.name, frozenset(_with_dependents(lost) & model.features),
        int(bits) if bits.isdigit() and int(bits) < model.physical_bits else None,
    )  # fmt: skip


def _ours(word: str) -> str:
    """QEMU's name of a feature behind + or - as our tables have it."""
    name = word[1:].replace("-", "_").replace(".", "_")
    return name if name in BY_NAME else name.replace("_", "")


def _with_dependents(lost: set[str]) -> set[str]:
    while more := {name for name, needs in NEEDS.items() if lost & set(needs)} - lost:
        lost = lost | more
    return lost


def _model_with(needs: set[str], vendor: str | None) -> CpuModel:
    default = CpuModel.load()
    for name in (DEFAULT_MODEL, *(name for name in names() if name != DEFAULT_MODEL)):
        model = CpuModel.load(name)
        if needs <= model.features and model.vendor == (vendor or default.vendor):
            return model
    return default
