"""Numbers and names held against headers that others wrote: the kernel's and the compiler's."""

from collections.abc import Callable

import pytest

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.features import BY_NAME, FEATURES
from hwmodel.arch.registers import Cr0, Cr4, Rflags
from hwmodel.arch.word import Word

Defines = Callable[[str], dict[str, str]]

# The compiler's name of a CPUID bit where it is not ours in upper case without underscores.
GCC_NAMES = {
    "cx16": "CMPXCHG16B", "cx8": "CMPXCHG8B", "fxsr": "FXSAVE", "lahf_lm": "LAHF_LM",
    "rdrand": "RDRND", "pclmulqdq": "PCLMUL", "prefetchw": "PRFCHW", "sse4_1": "SSE4_1",
    "sse4_2": "SSE4_2", "sha_ni": "SHA", "abm": "ABM",
}  # fmt: skip


def test_exit_reasons_are_the_kernels(defines: Defines) -> None:
    prefix = "EXIT_REASON_"
    kernel = {
        name.removeprefix(prefix): int(text)
        for name, text in defines("asm/vmx.h").items()
        if name.startswith(prefix)
    }
    assert len(kernel) > 60
    ours = {reason.name: int(reason) for reason in ExitReason}
    assert {name: number for name, number in kernel.items() if ours.get(name) != number} == {}


@pytest.mark.parametrize(
    ("word", "prefix"), [(Cr0, "X86_CR0_"), (Cr4, "X86_CR4_"), (Rflags, "X86_EFLAGS_")]
)
def test_register_bits_are_the_kernels(defines: Defines, word: type[Word], prefix: str) -> None:
    kernel = {
        name.removeprefix(prefix).removesuffix("_BIT"): int(text)
        for name, text in defines("asm/processor-flags.h").items()
        if name.startswith(prefix) and name.endswith("_BIT")
    }
    ours = {name.upper().rstrip("_"): part.low for name, part in word.layout.items()}
    renamed = {"FIXED": "ALWAYS_1"}
    assert len(kernel) > 9
    found = {renamed.get(name, name): bit for name, bit in kernel.items()}
    assert {name: bit for name, bit in found.items() if name in ours and ours[name] != bit} == {}
    assert set(found) & set(ours) == set(found) - {"PCID"}


def test_feature_bits_are_the_compilers(defines: Defines) -> None:
    compiler = {
        name.removeprefix("bit_"): text
        for name, text in defines("cpuid.h").items()
        if name.startswith("bit_")
    }
    compared = 0
    for feature in FEATURES:
        text = compiler.get(GCC_NAMES.get(feature.name, feature.name.upper().replace("_", "")))
        if text is not None:
            compared += 1
            assert text.replace("1u", "1") == f"(1 << {feature.bit})", feature
    assert compared > 50


def test_no_bit_and_no_name_is_used_twice() -> None:
    assert len(BY_NAME) == len(FEATURES)
    assert len({feature[1:] for feature in FEATURES}) == len(FEATURES)
