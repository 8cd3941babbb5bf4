"""One door for every model call. This file holds the version, and serves modules that were renamed."""

from __future__ import annotations

import sys

from muse.types.deprecation import RenamedModules

__version__ = "0.1.0"

sys.meta_path.append(RenamedModules())
