"""`python -m benchmarks.child MODULE JSON`: one measurement in a clean process, its result as one line of JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module


def main() -> int:
    """Run `measure` of the named module with the given arguments."""
    name, arguments = sys.argv[1:]
    measured = import_module(f"benchmarks.{name}").measure(**json.loads(arguments))
    print(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
