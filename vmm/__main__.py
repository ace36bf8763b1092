"""``python -m vmm`` is the ``ring1`` command."""

import sys

from vmm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
