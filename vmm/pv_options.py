"""Which options go with `--technique pv`: a PV guest has no PC around it."""

from typing import TYPE_CHECKING, Final

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.config import Config

PV_CPUS_MAX: Final = 32
"""struct shared_info has room for so many."""
_LEAST: Final = 8 << 20  # bytes of memory


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
