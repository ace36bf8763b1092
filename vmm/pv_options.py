"""Options of Xen's: which go with `--technique pv`, as a PV guest has no PC around it; and
`--xenstore PATH=VALUE[@TIME]`, what a toolstack writes for the guest to read.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.config import Config

PV_CPUS_MAX: Final = 32
"""struct shared_info has room for so many."""
_LEAST: Final = 8 << 20  # bytes of memory

_TIMES: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_WRITE: Final = re.compile(
    r"([-/A-Za-z0-9_@:.$]{1,1000})=(.{0,1000}?)(?:@([0-9]{1,9})(ns|us|ms|s))?"
)


@dataclass(frozen=True, slots=True)
class StoreWrite:
    """One node of xenstore: a path, relative to the guest's own or absolute; the time in ns."""

    path: str
    value: str
    ns: int = 0

    @classmethod
    def of(cls, text: Any) -> "StoreWrite":
        """Read "control/shutdown=poweroff@2s". Raises UsageError."""
        if isinstance(text, StoreWrite):
            return text
        found = _WRITE.fullmatch(str(text))
        if not found or "//" in found[1] or found[1].endswith("/"):
            raise UsageError(
                f"--xenstore {text!r} is not PATH=VALUE[@TIME]; write control/shutdown=poweroff@2s"
            )
        return cls(found[1], found[2], int(found[3] or 0) * _TIMES[found[4] or "ns"])


def types_at_xen(config: "Config") -> bool:
    """Whether what is typed goes to Xen's PV console beside a virtual PC: where Linux reads."""
    consoles = [word for word in config.cmdline.split() if word.startswith("console=")]
    reads = consoles[-1:] == ["console=hvc0"] and config.console == "serial"
    return "xen" in config.dialects and (reads or config.console == "xen")


def refuse_for_pv(config: "Config") -> None:
    """Refuse what a PV guest cannot have, naming the option."""
    if config.cpus > PV_CPUS_MAX:
        raise UsageError(f"--cpus {config.cpus} is out of range; a pv guest has 1 to {PV_CPUS_MAX}")
    if config.memory < _LEAST:
        raise UsageError(f"--memory {config.memory} is too little for a pv guest; give 8M or more")
    foreign = {
        "--dialect": config.dialects, "--share": config.shares, "--rng": config.rng,
        "--balloon": config.balloon, "--channel": config.channels, "--screen": config.screen,
        "--console": config.console != "serial", "--numa": config.numa > 1,
        "--kaslr": config.kaslr is not None, "--pcpus": config.pcpus > 1,
    }  # fmt: skip
    for option, given in foreign.items():
        if given:
            raise UsageError(f"{option} is not for a pv guest; leave it out")
