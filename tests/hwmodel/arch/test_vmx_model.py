"""What a CPU model's file says of VT-x, and what of it is refused, by name and line."""

from pathlib import Path

import pytest

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.model import MODELS, CpuModel, names
from hwmodel.arch.sourced import ModelError
from hwmodel.arch.vmx_model import NEEDS, WORDS
from hwmodel.arch.vmx_msrs import EptVpid
from hwmodel.mem.ram import Ram
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.capabilities import IMPLEMENTED, Capabilities
from tests.images import elf64
from vmm import VM
from vmm.errors import UsageError


def spoilt(folder: Path, old: str, new: str) -> tuple[Path, int]:
    """Write cascade-lake's file with one thing changed; return it, and the line of that."""
    text = (MODELS / "cascade-lake.toml").read_text()
    assert old in text, old
    path = folder / "odd.toml"
    path.write_text(text.replace(old, new, 1))
    return path, text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize("name", names())
def test_models_allow_what_is_implemented_and_no_more(name: str) -> None:
    capabilities = Capabilities.of_model(CpuModel.load(name))
    for word, have in IMPLEMENTED.items():
        assert not int(capabilities.supported[word]) & ~int(have)
    assert capabilities.supported[Primary] == IMPLEMENTED[Primary]


def test_five_levels_of_ept_come_with_five_levels_of_paging() -> None:
    for name, offered in (("cascade-lake", False), ("sapphire-rapids", True)):
        ram = Ram(1 << 20)
        pcpu = Pcpu.of_model(ram, Clock(), CpuModel.load(name))
        assert pcpu.capabilities.ept_vpid.walk_length_5 is offered
        pcpu.close()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"nmi_exiting"', '"nmi_leaving"', "pin_based control 'nmi_leaving' is unknown"),
        ('word = "entry"', 'word = "entries"', "'entries' must be one of pin_based"),
        ('"enable_pml"', '"enable_pml", "vmcs_shadowing"',
         "secondary control 'vmcs_shadowing' is allowed but not implemented; leave it out"),
        ('"enable_pml"', '"enable_pml", "enable_xsaves_xrstors"', "not implemented"),
        ('"invept",', '"invept", "supervisor_shadow_stack",', "not implemented"),
        ('"acknowledge_interrupt_on_exit"', '"load_cet_state"', "exit control"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name_and_line(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    path, line = spoilt(tmp_path, old, new)
    with pytest.raises(ModelError) as refused:
        Capabilities.of_model(CpuModel.load(str(path)))
    assert complaint in str(refused.value)
    if "acknowledge" not in old:
        assert str(refused.value).startswith(f"odd.toml:{line}: vmx")


def test_a_control_that_stands_on_another() -> None:
    """Manual, "Checks on VMX Controls"."""
    kinds = {(word, name) for word, kind in WORDS.items() for name in kind.layout}
    assert set(NEEDS) | {need for needs in NEEDS.values() for need in needs} <= kinds


def test_virtual_interrupts_without_a_tpr_shadow_contradict(tmp_path: Path) -> None:
    path, _ = spoilt(tmp_path, '"use_tpr_shadow", ', "")
    with pytest.raises(ModelError, match=r"odd\.toml:\d+: vmx: .* needs .*'use_tpr_shadow'"):
        CpuModel.load(str(path))


def test_a_missing_word_is_refused(tmp_path: Path) -> None:
    text = (MODELS / "cascade-lake.toml").read_text()
    entry = text[text.index('[[vmx]]\nword = "entry"') :].partition("\n\n")[0]
    path, _ = spoilt(tmp_path, entry, "")
    with pytest.raises(ModelError, match="says nothing of the word 'entry'"):
        CpuModel.load(str(path))


def test_less_is_a_processor_with_less(tmp_path: Path) -> None:
    path, _ = spoilt(tmp_path, '"use_tsc_scaling",', "")
    capabilities = Capabilities.of_model(CpuModel.load(str(path)))
    assert capabilities.allowed(Secondary).refuses(Secondary.of(use_tsc_scaling=1))
    assert capabilities.missing((Secondary.of(use_tsc_scaling=1, enable_ept=1),)) == [
        "use_tsc_scaling"
    ]
    assert not capabilities.missing((PinBased.of(nmi_exiting=1), EptVpid.of(invept=1)))


def test_what_the_hypervisor_needs_must_be_allowed(tmp_path: Path) -> None:
    path, _ = spoilt(tmp_path, '"rdseed_exiting", ', "")
    with pytest.raises(UsageError, match="odd does not allow rdseed_exiting, which is needed"):
        VM(elf64("hlt"), memory="4M", cpu_model=str(path))


@pytest.mark.held_by("ept", "shadow", why="APICv is VT-x's")
def test_apicv_on_a_processor_without_it(tmp_path: Path) -> None:
    path, _ = spoilt(tmp_path, '"activate_vmx_preemption_timer", "process_posted_interrupts",',
                     '"activate_vmx_preemption_timer",')  # fmt: skip
    with VM(elf64("cli; hlt"), memory="4M", cpu_model=str(path)) as vm:
        assert vm.run().reason == "halted"
    with pytest.raises(UsageError, match="process_posted_interrupts"):
        VM(elf64("hlt"), memory="4M", cpu_model=str(path), apicv=True)


def test_a_bad_file_is_bad_usage(tmp_path: Path) -> None:
    path, line = spoilt(tmp_path, "value = 46", "value = 460")
    with pytest.raises(UsageError, match=rf"odd\.toml:{line}: address_bits\.physical 460"):
        VM(elf64("hlt"), memory="4M", cpu_model=str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        VM(elf64("hlt"), memory="4M", cpu_model=str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="'z80' is not known; use one of"):
        VM(elf64("hlt"), memory="4M", cpu_model="z80")
