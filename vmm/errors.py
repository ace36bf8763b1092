"""What can go wrong that is not the guest's doing.

    Ring1Error                  .status: what the process ends with
    ├── UsageError        64    a bad option, image or file: one line, the value and the remedy
    │   └── NotBuiltError 64    a technique, command or option that is not built yet
    └── InternalError     70    ours: a broken installation, a host that will not do

A guest that misbehaves never raises: it ends in a ``Stop`` (see ``vmm.outcome``).
"""


class Ring1Error(Exception):
    """Base of everything that ring1 raises on purpose. ``str()`` of it is one line."""

    status: int = 70

    def __str__(self) -> str:
        """Return the message on one line, whatever a file name in it contained."""
        return " ".join(super().__str__().split())


class UsageError(Ring1Error):
    """A bad option, image or file: the message names the value and the remedy."""

    status = 64


class NotBuiltError(UsageError):
    """Something that ring1 is going to do and does not yet: the message is one sentence."""


class InternalError(Ring1Error):
    """The fault is ours or this host's: a missing native module, a refused probe."""
