"""A sample of random VMCS images: C engine and twin agree. The million: fuzz.py."""

from tests.hwmodel.vmx.fuzz import Fuzzer

ONCE_FOUND = (9282922, 9438766, 9845552)
"""Without EPT, CR3 where no machine memory is: the engine gave up; the bus answers all ones."""


def test_a_sample_of_random_vmcs_images_finds_nothing() -> None:
    fuzzer = Fuzzer()
    assert [
        what for seed in range(700) if (what := fuzzer.attempt(seed, verify=seed % 4 == 0))
    ] == []


def test_what_the_million_once_found() -> None:
    fuzzer = Fuzzer()
    assert [what for seed in ONCE_FOUND if (what := fuzzer.attempt(seed))] == []
