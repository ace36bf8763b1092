"""The hooks that observers may fill; an empty hook costs one test."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hwmodel.vmx.exit import Exit

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

ExitWatcher = Callable[["Vcpu", Exit], None]
Decorator = Callable[[Callable[[Exit], None]], Callable[[Exit], None]]


class Watchers:
    """Who wants to see exits; called before the handler, in order of registration.

    A watcher may set `vmexit.handled` to keep the handler from running; whatever it raises is the
    user's own exception and reaches the caller of `vm.run()`.
    """

    __slots__ = ("exits",)

    def __init__(self, first: Iterable[ExitWatcher] = ()) -> None:
        """Start with `first` watching, before all who come later."""
        self.exits: list[ExitWatcher] = [*first]

    def vmexit(self, vcpu: "Vcpu", vmexit: Exit) -> None:
        """Show an exit to everyone."""
        for watcher in self.exits:
            watcher(vcpu, vmexit)

    def when(self, name: str, conditions: dict[str, int]) -> Decorator:
        """Return a decorator whose function is called at each exit of that name that meets
        `conditions` on its attributes; `leaf` is CPUID's EAX.
        """

        def register(function: Callable[[Exit], None]) -> Callable[[Exit], None]:
            def watch(vcpu: "Vcpu", vmexit: Exit) -> None:
                if vmexit.name == name and _meets(vcpu, vmexit, conditions):
                    function(vmexit)

            self.exits.append(watch)
            return function

        return register


def _meets(vcpu: "Vcpu", vmexit: Exit, conditions: dict[str, int]) -> bool:
    for name, wanted in conditions.items():
        seen = vcpu.regs.rax & 0xFFFF_FFFF if name == "leaf" else getattr(vmexit, name)
        if seen != wanted:
            return False
    return True
