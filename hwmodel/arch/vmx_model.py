"""Which of VT-x a CPU model allows: the [[vmx]] tables of its file.

    [[vmx]]
    word = "secondary"
    allowed = ["enable_ept", "enable_vpid"]
    source = "..."

What no table names is not allowed, and an entry with it fails. The names are those of
hwmodel/arch/controls.py and vmx_msrs.py; that each is one that the engine implements is asked where
that is known (`Capabilities.of_model`).
"""

from dataclasses import dataclass
from typing import Final

from hwmodel.arch.controls import (
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    SecondaryExit,
    Tertiary,
    VmFunction,
)
from hwmodel.arch.sourced import ModelError, SourcedTable
from hwmodel.arch.vmx_msrs import EptVpid
from hwmodel.arch.word import Word

WORDS: Final[dict[str, type[Word]]] = {
    "pin_based": PinBased,
    "primary": Primary,
    "secondary": Secondary,
    "tertiary": Tertiary,
    "exit": ExitControls,
    "secondary_exit": SecondaryExit,
    "entry": EntryControls,
    "vm_function": VmFunction,
    "ept_vpid": EptVpid,
}
"""Control words, and the word of EPT's and VPID's capabilities, as a file calls them."""


Named = tuple[str, str]
_SECONDARY: Final[Named] = ("primary", "activate_secondary_controls")
_TERTIARY: Final[Named] = ("primary", "activate_tertiary_controls")
_EPT: Final[Named] = ("secondary", "enable_ept")
_SHADOW: Final[Named] = ("primary", "use_tpr_shadow")
NEEDS: Final[dict[Named, tuple[Named, ...]]] = {
    **{("secondary", name): (_SECONDARY,) for name in Secondary.layout},
    **{("tertiary", name): (_TERTIARY,) for name in Tertiary.layout},
    **{("secondary", name): (_SECONDARY, _EPT) for name in (
        "unrestricted_guest", "enable_pml", "ept_violation_ve",
        "mode_based_execute_control_for_ept", "sub_page_write_permissions_for_ept",
    )},
    **{("secondary", name): (_SECONDARY, _SHADOW) for name in (
        "virtualize_x2apic_mode", "apic_register_virtualization",
    )},
    ("secondary", "virtual_interrupt_delivery"): (
        _SECONDARY, _SHADOW, ("pin_based", "external_interrupt_exiting"),
    ),
    ("pin_based", "virtual_nmis"): (("pin_based", "nmi_exiting"),),
    ("pin_based", "process_posted_interrupts"): (
        ("secondary", "virtual_interrupt_delivery"), ("exit", "acknowledge_interrupt_on_exit"),
    ),
    ("primary", "nmi_window_exiting"): (("pin_based", "virtual_nmis"),),
    ("exit", "save_vmx_preemption_timer_value"): (
        ("pin_based", "activate_vmx_preemption_timer"),
    ),
    ("vm_function", "eptp_switching"): (("secondary", "enable_vm_functions"), _EPT),
    **{("ept_vpid", name): (_EPT,) for name in EptVpid.layout if not name.startswith("invvpid")},
    **{("ept_vpid", name): (("secondary", "enable_vpid"),) for name in EptVpid.layout
       if name.startswith("invvpid")},
}  # fmt: skip
"""What stands in the manual's "Checks on VMX Controls": a control without which another is none."""


@dataclass(frozen=True, slots=True)
class AllowedName:
    """One control that a file allows, and where that stands."""

    word: str
    name: str
    place: str
    """File and line."""

    def refused(self, complaint: str) -> ModelError:
        """Return the error that says what is wrong with it."""
        return ModelError(f"{self.place}: vmx: {self.word} control {self.name!r} {complaint}")


@dataclass(frozen=True, slots=True)
class VmxOffer:
    """Everything that one model allows."""

    names: tuple[AllowedName, ...]

    @classmethod
    def read(cls, file: SourcedTable) -> "VmxOffer":
        """Take [[vmx]] out of a model's file. Raises ModelError."""
        offer = cls(tuple(one for row in file.rows("vmx") for one in _names(row)))
        for one in offer.names:
            if one.name not in WORDS[one.word].layout:
                raise one.refused("is unknown")
            for word, name in NEEDS.get((one.word, one.name), ()):
                if not offer.has(word, name):
                    raise one.refused(f"needs the {word} control {name!r}")
        for word in WORDS:
            if word not in {one.word for one in offer.names} and word not in _MAY_BE_EMPTY:
                raise file.error("vmx", f"says nothing of the word {word!r}")
        return offer

    def has(self, word: str, name: str) -> bool:
        """Whether a control is allowed."""
        return any((one.word, one.name) == (word, name) for one in self.names)

    def allowed(self) -> dict[type[Word], Word]:
        """Return each word with the bits that are allowed."""
        names: dict[str, dict[str, int]] = {word: {} for word in WORDS}
        for one in self.names:
            names[one.word][one.name] = 1
        return {kind: kind.of(**names[word]) for word, kind in WORDS.items()}


_MAY_BE_EMPTY: Final = frozenset({"tertiary", "secondary_exit", "vm_function"})


def _names(row: SourcedTable) -> list[AllowedName]:
    word = row.text("word")
    if word not in WORDS:
        raise row.error("word", f"{word!r} must be one of {', '.join(WORDS)}")
    return [
        AllowedName(word, name, f"{row.file}:{row.lines.line_of_name(row.path, name)}")
        for name in row.names("allowed")
    ]
