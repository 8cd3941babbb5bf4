"""`python -m muse`, the same as the console script `muse`; it knows no command."""

from __future__ import annotations

import sys

from muse.cli import main

if __name__ == "__main__":
    sys.exit(main())
