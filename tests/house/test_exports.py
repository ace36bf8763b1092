"""What a package promises by name is there."""

import importlib

import pytest


@pytest.mark.parametrize("package", ["vmm", "hwmodel"])
def test_every_promised_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    promised = getattr(module, "__all__", [])
    assert sorted(set(promised)) == sorted(promised)
    assert [name for name in promised if not hasattr(module, name)] == []
