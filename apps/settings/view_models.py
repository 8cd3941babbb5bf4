"""What the templates of the page are given; it changes nothing."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from starlette.requests import Request

from apps.settings import entry_form, form_data, limit_fields, provider_status
from apps.settings.config_change import DEFAULT, Proposal, entry_of
from apps.settings.config_state import Standing, Trouble, stand
from apps.settings.entry_form import AMOUNT_FIELDS, CALL_FIELDS, ROUTE_FIELDS, Field
from apps.settings.json_scanner import Path, steps
from apps.settings.limit_fields import LISTS
from apps.settings.provider_status import Card
from apps.settings.route_table import Plan, Plans, grouped
from muse.diagnostics import whatif
from muse.diagnostics.whatif import WhatIf
from muse.routing.unreachable_rules import config_path_of

log = logging.getLogger(__name__)

SINCE = "30d"
_MOST_READING_S = 0.5


class Input(Struct, frozen=True):
    """One field as the form draws it; `troubles` are what is wrong with what stands in it."""

    field: Field
    text: str
    troubles: tuple[Trouble, ...] = ()


class RuleForm(Struct, frozen=True):
    """The form of one entry; `pattern` is None for the default and "" for a new one, `id` is fit for an element."""

    pattern: str | None
    id: str
    place: str
    base: str
    stamp: str
    route: tuple[Input, ...]
    calls: tuple[Input, ...]
    amounts: tuple[Input, ...]
    has_rule: bool
    is_new: bool = False
    name: str = ""

    @property
    def says_calls(self) -> bool:
        """Whether it says anything of how calls are made: then that part is open."""
        return any(row.text or row.troubles for row in self.calls)

    @property
    def says_amounts(self) -> bool:
        """Whether it has a limit or budget of its own: then that part is open."""
        return any(row.text or row.troubles for row in self.amounts)


def workspace(request: Request) -> Mapping[str, Any]:
    """Everything the first page shows."""
    now = stand()
    shown: dict[str, Any] = {"now": now, "said": form_data.said(request), "id_of": id_of}
    if not now.is_known:
        return shown
    plans = Plans(now.snapshot)
    groups = grouped(plans)
    providers = provider_status.cards(now.config)
    return shown | {
        "cards": providers,
        "amount_count": limit_fields.count_of(now.config),
        "lacks": provider_status.lacks(providers),
        "default": plans.plan(""),
        "groups": groups,
        "count": sum(len(rows) for _, rows in groups),
        "own_count": sum(row.has_rule for _, rows in groups for row in rows),
        "troubles_at": _troubles_at(now),
        **choices(plans),
    }


def choices(plans: Plans) -> Mapping[str, Any]:
    """What the fields of a form offer."""
    return {"provider_names": list(plans.specs), "model_names": plans.models()}


def rule_form(
    now: Standing, pattern: str | None, *, form: Mapping[str, str] | None = None, troubles: Sequence[Trouble] = ()
) -> RuleForm:
    """The form of an entry: as it stands, or as a person has filled it in."""
    entry = entry_of(now, pattern)
    place = DEFAULT if pattern is None else config_path_of(pattern)
    found = (*troubles, *(trouble for trouble in now.troubles if _is_below(trouble.path, place)))
    base = json.dumps(entry, ensure_ascii=False) if form is None else form.get("base", "{}")
    stamp = now.mark if form is None else form.get("stamp", now.mark)

    def inputs(fields: Sequence[Field]) -> tuple[Input, ...]:
        return tuple(
            Input(
                field,
                entry_form.shown(field, entry) if form is None else form.get(field.name, ""),
                tuple(row for row in found if _is_about(row.path, place, field.name)),
            )
            for field in fields
        )

    return RuleForm(
        pattern=pattern,
        id=id_of(pattern),
        place=place,
        base=base,
        stamp=stamp,
        route=inputs(ROUTE_FIELDS),
        calls=inputs(CALL_FIELDS),
        amounts=inputs(AMOUNT_FIELDS),
        has_rule=pattern is not None and pattern in now.entries,
    )


def new_form(now: Standing, *, form: Mapping[str, str] | None = None) -> RuleForm:
    """The form of a rule that is not there yet."""
    given = form or {}
    made = rule_form(now, "", form={**given, "base": "{}", "stamp": given.get("stamp", now.mark)})
    return RuleForm(
        pattern="",
        id="new",
        place="providers.contexts",
        base="{}",
        stamp=made.stamp,
        route=made.route,
        calls=made.calls,
        amounts=made.amounts,
        has_rule=False,
        is_new=True,
        name=given.get("name", ""),
    )


def rule_context(now: Standing, plan: Plan, plans: Plans, shown: RuleForm) -> dict[str, Any]:
    """What the part of one context is given: its route, why, and its form."""
    info = plans.info(plan.name)
    return {
        "now": now,
        "plan": plan,
        "lack": _lack_of(plan, now),
        "info": info,
        "rule": shown,
        "proposal": None,
        "failure": None,
        "whatif": None,
        **choices(plans),
    }


def _lack_of(plan: Plan, now: Standing) -> tuple[Card, str] | None:
    """What keeps the provider of a route from answering: its card and the words; None where nothing is known to."""
    try:
        card = provider_status.card(plan.provider or "", now.config)
    except FileNotFoundError:
        return None
    return None if card.is_ready else (card, card.state[1])


def proposal_context(proposal: Proposal | None, failure: Trouble | None = None) -> dict[str, Any]:
    """What the part of a preview is given, with the calls of the last days that would have gone elsewhere."""
    is_good = proposal is not None and not proposal.troubles
    return {
        "proposal": proposal,
        "failure": failure,
        "whatif": moved_calls(proposal) if proposal is not None and is_good else None,
        "lacks": provider_status.lacks(provider_status.cards(proposal.before.config)) if proposal is not None else {},
    }


def moved_calls(proposal: Proposal) -> WhatIf | None:
    """What the token log says of a proposal; None, and a warning, where it cannot be read."""
    try:
        return whatif.compare(
            proposal.before.config,
            proposal.after.config,
            since=SINCE,
            most_s=_MOST_READING_S,
            known_specs={**proposal.before.specs, **proposal.after.specs},
        )
    except OSError as exc:
        log.warning("the token log cannot be read for a preview: %s", exc)
        return None


def id_of(pattern: str | None) -> str:
    """An element's id for an entry, whatever its name holds."""
    if pattern is None:
        return "default"
    return f"c-{hashlib.sha256(pattern.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _troubles_at(now: Standing) -> Mapping[str, list[Trouble]]:
    """The problems of journal.json by the place of the entry that they are in; the others are under ""."""
    found: dict[str, list[Trouble]] = {}
    for trouble in now.troubles:
        path = steps(trouble.path)
        is_rule = path[:2] == ("providers", "contexts") and len(path) > 2
        place = config_path_of(str(path[2])) if is_rule else DEFAULT if path[:2] == ("providers", "default") else ""
        found.setdefault(place, []).append(trouble)
    return found


def _is_about(path: str, place: str, field: str) -> bool:
    """Whether a problem is that of a field of an entry, or of its limit or budget."""
    kind, dot, key = field.partition(".")
    if not dot:
        return _is_below(path, f"{place}.{field}")
    found = steps(path)
    return found[:2] == ("providers", LISTS[kind]) and found[-1] == key


def _is_below(path: str, place: str) -> bool:
    wanted: Path = steps(place)
    return steps(path)[: len(wanted)] == wanted
