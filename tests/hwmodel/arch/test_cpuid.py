"""CPUID as a guest decodes it, and model files that make no sense."""

from pathlib import Path

import pytest

from hwmodel.arch.cpuid import Cpuid, Leaf, supported_cr4, supported_efer
from hwmodel.arch.features import BY_NAME, NEEDS
from hwmodel.arch.model import MODELS, CpuModel, names
from hwmodel.arch.sourced import ModelError

CR4_OSXSAVE = 1 << 18


@pytest.fixture
def cpuid() -> Cpuid:
    return Cpuid.of(CpuModel.load())


def test_identity_as_linux_decodes_it(cpuid: Cpuid) -> None:
    top, b, c, d = cpuid.query(0)
    assert top == 0x16
    assert b"".join(word.to_bytes(4, "little") for word in (b, d, c)) == b"GenuineIntel"
    eax = cpuid.query(1).eax
    family = eax >> 8 & 15
    model = eax >> 4 & 15 | (eax >> 16 & 15) << 4
    assert (family, model, eax & 15) == (6, 85, 7)
    brand = b"".join(
        w.to_bytes(4, "little") for n in (2, 3, 4) for w in cpuid.query(0x80000000 + n)
    )
    assert brand.rstrip(b"\0") == b"ring1 virtual CPU (cascade-lake) @ 2.50GHz"


def test_tsc_frequency_as_linux_computes_it(cpuid: Cpuid) -> None:
    denominator, numerator, crystal, _ = cpuid.query(0x15)
    assert crystal * numerator // denominator == 2_500_000_000
    assert cpuid.query(0x16)[:3] == (2500, 2500, 100)


def test_caches_have_the_parts_sizes(cpuid: Cpuid) -> None:
    sizes = {}
    for index in range(4):
        eax, ebx, ecx, _ = cpuid.query(4, index)
        ways, partitions, line = (ebx >> 22) + 1, (ebx >> 12 & 0x3FF) + 1, (ebx & 0xFFF) + 1
        sizes[eax >> 5 & 7, eax & 31] = ways * partitions * line * (ecx + 1)
    assert sizes == {
        (1, 1): 32 << 10,
        (1, 2): 32 << 10,
        (2, 3): 1 << 20,
        (3, 3): 27 << 20 | 1 << 19,
    }
    assert cpuid.query(4, 4) == Leaf()
    assert cpuid.query(0x80000006).ecx >> 16 == 1024


def test_only_what_the_engine_can_do_is_offered(cpuid: Cpuid) -> None:
    """Unicorn's core has no AVX, nor XSAVE state that we keep."""
    absent = {"avx", "avx2", "fma", "xsave", "osxsave", "rdseed", "erms"}
    assert absent & cpuid.model.features == set()
    assert cpuid.query(1).ecx & (1 << 28 | 1 << 26) == 0
    assert cpuid.query(1).ecx >> 31 == 1  # the hypervisor bit
    assert cpuid.query(0x80000001).edx >> 29 & 1  # long mode


def test_leaves_out_of_range(cpuid: Cpuid) -> None:
    assert cpuid.query(0x17) == cpuid.query(0x16)
    assert cpuid.query(0x80000009) == cpuid.query(0x16)
    assert cpuid.query(0xFFFFFFFF) == cpuid.query(0x16)
    assert cpuid.query(0x40000000) == Leaf()
    assert cpuid.query(7, 1) == Leaf()
    assert cpuid.query(1, 9) == cpuid.query(1)


def test_what_registers_change() -> None:
    cpuid = Cpuid.of(CpuModel.load().plus("xsave"), cpus=3)
    plain = cpuid.query(1, apic_id=2)
    assert plain.ebx >> 24 == 2
    assert plain.ebx >> 16 & 0xFF == 4  # ids are handed out in powers of two
    assert plain.edx >> 28 & 1
    assert (cpuid.query(1, apic_id=2, cr4=CR4_OSXSAVE).ecx ^ plain.ecx) == 1 << 27
    assert (cpuid.query(1, apic_id=2, apic_enabled=False).edx ^ plain.edx) == 1 << 9
    assert cpuid.query(0xB, 1, apic_id=2) == (2, 3, 0x201, 2)
    assert cpuid.query(0xB, 2, apic_id=2) == (0, 0, 2, 2)


def test_ospke_follows_cr4(cpuid: Cpuid) -> None:
    assert cpuid.query(7).ecx >> 3 & 3 == 1
    assert cpuid.query(7, cr4=1 << 22).ecx >> 3 & 3 == 3


def test_address_widths(cpuid: Cpuid) -> None:
    assert cpuid.query(0x80000008).eax == 0x302E
    wide = Cpuid.of(CpuModel.load().plus("la57"))
    assert wide.query(0x80000008).eax == 0x392E
    assert wide.query(7).ecx >> 16 & 1


def test_register_bits_follow_the_features() -> None:
    model = CpuModel.load()
    assert supported_cr4(model) == 0x730FFC
    assert supported_cr4(model.plus("la57")).la57
    assert supported_cr4(model.without("smep", "smap", "pku")) == 0x030FFC
    assert supported_efer(model) == 0xD01


def test_features_with_unmet_needs_are_refused() -> None:
    with pytest.raises(ModelError, match="'invpcid' needs 'pcid'"):
        CpuModel.load().without("pcid")
    with pytest.raises(ModelError, match="'aes' needs 'sse2'"):
        CpuModel.load().without("sse2")
    assert set(NEEDS) | {need for needs in NEEDS.values() for need in needs} <= set(BY_NAME)


def test_every_model_loads() -> None:
    assert "cascade-lake" in names()
    assert all(CpuModel.load(name).name == name for name in names())


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="no CPU model 'z80'; there are: cascade-lake"):
        CpuModel.load("z80")


EMPTIED = "Xeon Scalable (2nd generation): no 5-level paging"
SPOILED = [
    ("stepping = {", "steping = {", r"bad\.toml:3: identity\.stepping is missing"),
    ("value = 85", 'value = "85"', r"bad\.toml:7: identity\.model\.value must be a int, not '85'"),
    ("[address_bits]", "colour = 1\n[address_bits]", r"bad\.toml:10: identity\.colour is unknown"),
    ("value = 46", "value = 60", r"bad\.toml:11: address_bits\.physical 60 must be 32 to 52"),
    ("value = 48", "value = 57", r"address_bits\.linear 57 must be 57 with la57, else 48"),
    ("25_000_000,", "24_000_000,", r"clocks\.tsc_hz 2500000000 must be a multiple of"),
    ('"adx"', '"avx9"', r"bad\.toml:25: features: unknown 'avx9'"),
    ('"nx", ', "", r"bad\.toml:29: features: 'lm' needs 'nx'"),
    ("GenuineIntel", "Genuine", r"bad\.toml:4: identity\.vendor 'Genuine' must have 12 characters"),
    (EMPTIED, "", r"address_bits\.linear\.source is empty"),
    ("[clocks]", "[clocks", r"bad\.toml: not TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), SPOILED)
def test_a_bad_model_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (MODELS / "cascade-lake.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=message):
        CpuModel.load("bad", tmp_path)
