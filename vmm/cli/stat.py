"""``ring1 stat``: run a guest and count its exits, as `perf kvm stat` does."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vmm.cli.session import Onlooker
from vmm.errors import UsageError

if TYPE_CHECKING:
    from rich.live import Live

    from vmm import VM
    from vmm.config import Config
    from vmm.observe.counting import Counting
    from vmm.observe.stats import RunResult

_PERIOD_SECONDS = 0.5
_EVENTS = {"vmexit": "EXIT", "mmio": "MMIO", "ioport": "PORT"}
Choice = TypeVar("Choice", bound=StrEnum)


def stat(
    context: typer.Context,
    event: Annotated[
        str, typer.Option(metavar="vmexit|mmio|ioport", help="What is counted.")
    ] = "vmexit",
    style: Annotated[
        str, typer.Option(metavar="classic|new", help="Which of perf's tables.")
    ] = "classic",
    key: Annotated[
        str, typer.Option("-k", "--key", metavar="sample|time", help="Sort by count or mean time.")
    ] = "sample",
    vcpu: Annotated[int | None, typer.Option(metavar="N", help="Of one virtual CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="KVM's counters, for programs.")] = False,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show it as it runs [on a terminal].")
    ] = None,
    unknown_costs: Annotated[
        bool, typer.Option("--unknown-costs", help="Instructions whose cost no table has.")
    ] = False,
) -> int:
    """Run IMAGE with the options of ring1 run; print the table of perf kvm stat on stdout.

    Serial output goes to --serial-file, or nowhere.
    """
    from vmm.cli.run_command import config_of_words
    from vmm.cli.session import run_session
    from vmm.observe.perf_stat import SortKey, Style

    if event not in _EVENTS:
        raise UsageError(f"--event {event!r} is not vmexit, mmio or ioport; choose one")
    view = _View(
        event,
        _choice("--style", Style, style),
        _choice("--key", SortKey, key),
        vcpu,
        as_json=as_json,
        live=sys.stderr.isatty() and not as_json if live is None else live,
        unknown_costs=unknown_costs,
    )
    config = config_of_words(context.args, "ring1 stat")
    view.check(config)
    return run_session(config, view)


def _choice(option: str, kind: type[Choice], value: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(
            f"{option} {value!r} is not one of {', '.join(kind)}; choose one"
        ) from None


class _View(Onlooker):
    """Counts, shows the table while the guest runs, and prints it at the end."""

    shows_serial = False

    def __init__(
        self, event: str, style: Any, key: Any, vcpu: int | None, *, as_json: bool, live: bool,
        unknown_costs: bool,
    ) -> None:  # fmt: skip
        self._event, self._style, self._key, self._vcpu = event, style, key, vcpu
        self._json, self._is_live, self._unknown_costs = as_json, live, unknown_costs
        self._counting: Counting | None = None
        self._live: Live | None = None
        self._next = self._began = 0.0

    def check(self, config: "Config") -> None:
        """Refuse what cannot be, before anything runs."""
        from vmm.config import Timing

        if self._vcpu is not None and not 0 <= self._vcpu < config.cpus:
            raise UsageError(f"--vcpu {self._vcpu} is not there; give 0 to {config.cpus - 1}")
        if self._unknown_costs and config.timing is Timing.FAST:
            raise UsageError("--unknown-costs: --timing fast has no costs; add --timing cycle")

    def between(self, poll: Callable[[], bytes]) -> Callable[[], bytes]:
        """Refresh the live table twice a second."""

        def refresh_and_poll() -> bytes:
            now = time.monotonic()
            if self._live is not None and now >= self._next:
                self._next = now + _PERIOD_SECONDS
                self._live.update(self._picture(now), refresh=True)
            return poll()

        return refresh_and_poll

    @contextmanager
    def on(self, vm: "VM") -> Iterator[None]:
        """Count what runs within."""
        from vmm.observe.counting import Counting

        self._vm, self._counting = vm, Counting(vm)
        self._began = time.monotonic()
        if not self._is_live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def report(self, vm: "VM", result: "RunResult", wall_seconds: float) -> None:
        """Print the table, or everything as JSON, on stdout."""
        del result, wall_seconds
        assert self._counting is not None
        if self._json:
            found = self._counting.as_dict(self._vcpu)
            if self._unknown_costs:
                from vmm.observe.unpriced import unpriced

                found["unknown_costs"] = dict(unpriced(vm))
            print(json.dumps(found, indent=1))
        else:
            print("\n".join(self._table()))
            if self._unknown_costs:
                _print_unpriced(vm)
        self._counting.stop()

    def _table(self) -> list[str]:
        from hwmodel.cpu.recording import Event
        from vmm.observe.perf_stat import table

        assert self._counting is not None
        found = self._counting.stat(Event[_EVENTS[self._event]], self._vcpu, self._key)
        return list(table(found, self._style))

    def _picture(self, now: float) -> Any:
        from rich.console import Group
        from rich.text import Text

        vm, elapsed = self._vm, max(now - self._began, 1e-9)
        limit = vm.config.max_cycles
        part = f" of {limit:,} ({vm.clock.now / limit:.1%})" if limit else ""
        line = (
            f"{elapsed:8.1f} s  cycle {vm.clock.now:,}{part}  "
            f"{vm.pcpu.instructions / elapsed / 1e6:.1f} M instructions/s"
        )
        return Group(Text("\n".join(self._table())), Text(line, style="bold"))


def _print_unpriced(vm: "VM") -> None:
    from vmm.observe.unpriced import unpriced

    print("instructions whose cost is not in the table, an example of each form, by blocks:")
    for text, blocks in unpriced(vm):
        print(f"{blocks:12}  {text}")
