"""The C engine's side of VT-x: what a processor allows, and its entry checks by name."""

from typing import Any, Final

from hwmodel.arch.controls import (
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    SecondaryExit,
    Tertiary,
)
from hwmodel.cpu.unicorn import ffi, lib
from hwmodel.vmx.capabilities import CR0_FIXED0, CR0_FIXED1, Capabilities

_CONTROL_WORDS: Final = (
    PinBased, Primary, Secondary, Tertiary, ExitControls, SecondaryExit, EntryControls,
)  # fmt: skip
_CAPABILITY_WORDS: Final = (
    "basic", "misc", "ept_vpid", "vm_functions", "cr4_fixed0", "cr4_fixed1", "efer_bits",
    "debugctl_bits", "pending_debug_bits", "physical_bits", "linear_bits", "root_is_long_mode",
)  # fmt: skip


def native_capabilities(capabilities: Capabilities) -> Any:
    """Make a `struct vmx_capabilities`."""
    native = ffi.new("struct vmx_capabilities *")
    for index, word in enumerate(_CONTROL_WORDS):
        allowed = capabilities.allowed(word)
        native.must_be_1[index], native.may_be_1[index] = allowed.must_be_1, allowed.may_be_1
    native.cr0_fixed0, native.cr0_fixed1 = CR0_FIXED0, CR0_FIXED1
    for name in _CAPABILITY_WORDS:
        setattr(native, name, int(getattr(capabilities, name)))
    return native


def check_names() -> list[str]:
    """Return the names of the C engine's entry checks, in the order in which they are made."""
    return [ffi.string(lib.entry_check_name(n)).decode() for n in range(lib.entry_check_count())]
