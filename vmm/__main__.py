"""``python -m vmm`` is the ``ring1`` command."""

import gc
import sys

gc.set_threshold(100_000)  # what a start makes stays: there is nothing to look for among it

from vmm.cli.main import main  # noqa: E402 (behind that)

if __name__ == "__main__":
    sys.exit(main())
