"""Fixtures: a kernel with its initramfs, fetched once."""

import pytest

from tests.linux.guests import Boot, initrd_for, kernel_or_skip
from vmm.cli.kernels import Flavour


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    kernel = kernel_or_skip(Flavour.CLOUD)
    return Boot(kernel, initrd_for(kernel, tmp_path_factory.mktemp("cloud")))


@pytest.fixture(scope="session")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    kernel = kernel_or_skip(Flavour.GENERIC)
    return Boot(kernel, initrd_for(kernel, tmp_path_factory.mktemp("generic")))
