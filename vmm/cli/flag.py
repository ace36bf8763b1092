"""A flag between threads that can be waited for together with sockets."""

import contextlib
import os


class Flag:
    """Like threading.Event, with a descriptor that is readable while the flag is set."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """Raise it, from any thread."""
        os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Take it down."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def close(self) -> None:
        """Close the descriptor; the flag is not used any more."""
        os.close(self.descriptor)
