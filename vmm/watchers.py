"""The hooks that observers may fill; an empty hook costs one test."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hwmodel.vmx.exit import Exit

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

ExitWatcher = Callable[["Vcpu", Exit], None]


class Watchers:
    """Who wants to see exits; called before the handler, in order of registration.

    A watcher may set `vmexit.handled` to keep the handler from running; whatever it raises is the
    user's own exception and reaches the caller of `vm.run()`.
    """

    __slots__ = ("exits",)

    def __init__(self) -> None:
        """Start with nobody watching."""
        self.exits: list[ExitWatcher] = []

    def vmexit(self, vcpu: "Vcpu", vmexit: Exit) -> None:
        """Show an exit to everyone."""
        for watcher in self.exits:
            watcher(vcpu, vmexit)
