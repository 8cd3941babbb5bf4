"""What tokens cost: the rates of genai-prices, compiled once per model and kept on disk; it knows no token log.

genai-prices takes 0.1 s to import and 70 µs a call. So the rates of each model that is used are taken out of it once,
as plain numbers, and kept in the user's cache folder beside the stamp of the price list they came from.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from muse.journal.storage.atomic_files import home_folder, write_atomic
from muse.types.usage import Usage

log = logging.getLogger(__name__)

_PER_TOKEN = 1e-6
_ONE_DAY_S = 86_400


class Rates(Struct, frozen=True):
    """Dollars per million tokens from `start` input tokens on."""

    start: int
    input: float
    output: float
    cached: float
    cache_write: float


class Cost(Struct, frozen=True):
    """What a call cost in US dollars; the total is the sum of the parts."""

    input_cost: float
    output_cost: float

    @property
    def total_cost(self) -> float:
        """Input plus output."""
        return self.input_cost + self.output_cost


_price_cache: dict[str, tuple[Rates, ...] | None] = {}
_price_cache_is_read = False
_lock = threading.Lock()
if sys.platform != "win32":  # as in muse.journal.config_loader: no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def cost_of(model: str, usage: Usage, price_id: str | None, *, calls: int = 1) -> Cost | None:
    """The cost of `usage` at today's price of `model`; None if the price list does not have it.

    `price_id` is the provider's name in the price list; where `usage` is the sum of several `calls`, the rates are
    those of their mean size. Usage is inclusive: cached and written input is billed at its own rate and taken off the
    plain input; reasoning is output.
    """
    rates = _rates(model, price_id)
    if not rates:
        return None
    at = rates[0]
    for step in rates:
        if usage.input_tokens > step.start * calls:
            at = step
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    plain = usage.input_tokens - cached - written
    paid_in = plain * at.input + cached * at.cached + written * at.cache_write
    return Cost(paid_in * _PER_TOKEN, usage.output_tokens * at.output * _PER_TOKEN)


def is_known(model: str, price_id: str | None) -> bool:
    """Whether the look-up of `model` was made before, so that the next one takes no more than a microsecond."""
    return f"{price_id or ''}/{model}" in _price_cache


def is_priced(model: str, price_id: str | None) -> bool:
    """Whether the price list has `model`."""
    return _rates(model, price_id) is not None


def _rates(model: str, price_id: str | None) -> tuple[Rates, ...] | None:
    key = f"{price_id or ''}/{model}"
    try:
        return _price_cache[key]
    except KeyError:
        pass
    with _lock:
        if not _price_cache_is_read:
            _read_price_cache()
        if key not in _price_cache:
            _price_cache[key] = _look_up(model, price_id)
            _write_price_cache()
        return _price_cache[key]


def _look_up(model: str, price_id: str | None) -> tuple[Rates, ...] | None:
    """The rates of one model out of the price list as it stands today."""
    from genai_prices import data_snapshot  # 0.1 s, and only a model's first look-up of the day pays it

    snapshot = data_snapshot.get_snapshot()
    for provider in (price_id, None):
        try:
            _, info = snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            continue
        return _compile(vars(info.get_prices(datetime.now(UTC))))
    return None


def _compile(price: Mapping[str, Any]) -> tuple[Rates, ...] | None:
    """The rates at each input size where one of them changes; None if the model has no price a token."""
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    fields = tuple(price.get(name) for name in names)
    if fields[0] is None and fields[1] is None:
        return None
    starts = {0} | {tier.start for field in fields for tier in getattr(field, "tiers", ())}
    return tuple(_rates_from(start, fields) for start in sorted(starts))


def _rates_from(start: int, fields: tuple[Any, ...]) -> Rates:
    """The rates that hold above `start` input tokens; a missing cache rate is the input rate."""
    paid_in, paid_out, cached, written = (_at(field, start) for field in fields)
    plain = paid_in or 0.0
    return Rates(
        start, plain, paid_out or 0.0, plain if cached is None else cached, plain if written is None else written
    )


def _at(field: Any, start: int) -> float | None:
    """One rate above `start` tokens: a plain number, or the last tier that begins at or below it."""
    if field is None:
        return None
    if not hasattr(field, "tiers"):
        return float(field)
    rate = field.base
    for tier in field.tiers:
        if tier.start <= start:
            rate = tier.price
    return float(rate)


def _price_cache_path() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.join(home_folder(), ".cache")) / "muse" / "prices.json"


def _stamp() -> list[int | str]:
    """What the kept rates depend on: the installed price list and the day (some prices change on a date)."""
    spec = PathFinder.find_spec("genai_prices")
    data = os.path.join(os.path.dirname(spec.origin), "data.py") if spec and spec.origin else ""
    try:
        info = os.stat(data)
    except OSError:
        return []
    return [data, info.st_mtime_ns, info.st_size, int(time.time() // _ONE_DAY_S)]


def _read_price_cache() -> None:
    global _price_cache_is_read
    _price_cache_is_read = True
    try:
        kept = json.loads(_price_cache_path().read_bytes())
        if kept["stamp"] == _stamp():
            rows: Mapping[str, Any] = kept["rates"]
            _price_cache.update({k: None if v is None else tuple(Rates(**step) for step in v) for k, v in rows.items()})
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.debug("prices kept in %s are not usable (%s); they are looked up again", _price_cache_path(), exc)


def _write_price_cache() -> None:
    """Keep the rates for the next process; that the cache folder is not writable costs time only."""
    path = _price_cache_path()
    rows = {key: None if rates is None else [asdict(step) for step in rates] for key, rates in _price_cache.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"stamp": _stamp(), "rates": rows}))
    except OSError as exc:
        log.debug("prices are not kept in %s (%s)", path, exc)
