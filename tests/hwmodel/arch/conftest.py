"""Independent sources: the C headers that come with the host's kernel and compiler."""

import re
import subprocess
from collections.abc import Callable

import pytest

Defines = Callable[[str], dict[str, str]]
DEFINE = re.compile(r"#define (\w+) (.+)")


@pytest.fixture(scope="session")
def defines() -> Defines:
    """What a system header defines: name to text. Skips where the header is not installed."""

    def read(header: str) -> dict[str, str]:
        source = f"#include <{header}>\n"
        try:
            done = subprocess.run(
                ["gcc", "-E", "-dM", "-xc", "-"], input=source, capture_output=True, text=True
            )
        except OSError:
            pytest.skip("no gcc to read system headers with")
        if done.returncode:
            pytest.skip(f"this host has no <{header}>")
        lines = map(DEFINE.match, done.stdout.splitlines())
        return {found[1]: found[2] for found in lines if found}

    return read
