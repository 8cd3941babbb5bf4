"""The pages of one entry: its form, the preview of a change, saving and removing it; it knows no key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from apps.host.templating import render
from apps.settings import config_change, entry_form, form_data, view_models
from apps.settings.config_change import Change, Proposal, entry_of, in_short, propose, removal, rule_change
from apps.settings.config_state import Standing, Trouble, stamp_from, stand, trouble_of
from apps.settings.entry_form import applied, base_from, wanted
from apps.settings.route_table import Plans
from apps.settings.view_models import RuleForm
from muse.errors import ConfigError
from muse.journal.config_loader import ConflictError
from muse.routing.unreachable_rules import config_path_of

_LONGEST_NAME = 200


def show(request: Request) -> Response:
    """`GET rule?context=NAME`, `rule?default=1` or `rule?new=1`: the route of one context, why, and its form."""
    now = stand()
    config_change.require_readable(now)
    plans = Plans(now.snapshot)
    if "new" in request.query_params:
        return _page(request, now, view_models.new_form(now), plans)
    pattern = _pattern(request.query_params)
    return _page(request, now, view_models.rule_form(now, pattern), plans)


def _pattern(given: Mapping[str, str]) -> str | None:
    """Which entry is meant: None for the default.

    Raises:
        HTTPException: 400, none is named.
    """
    if given.get("default"):
        return None
    if "context" not in given:
        raise HTTPException(400, detail="context: found nothing, expected the name of a context or pattern")
    return given["context"]


def _page(request: Request, now: Standing, shown: RuleForm, plans: Plans, status: int = 200, **more: Any) -> Response:
    """The part of one context where the page asked for it, else as a page of its own."""
    context = view_models.rule_context(now, plans.plan(shown.pattern or ""), plans, shown) | more
    part = "settings/_rule.html" if request.headers.get("HX-Request") == "true" else "settings/rule.html"
    return render(request, part, status, **context)


class _Wish:
    """What a person filled in: which entry, what of it changes, and when its page was drawn."""

    def __init__(self, form: Mapping[str, str]) -> None:
        self.form = form
        self.is_new = form.get("new") == "1"
        self.pattern = None if self.is_new else _pattern(form)
        self.name = form.get("name", "").strip()
        self.stamp = stamp_from(form.get("stamp", ""))
        self.delta = wanted(form, base_from(form.get("base", "{}")))

    @property
    def target(self) -> str | None:
        """The pattern that the change is for.

        Raises:
            ConfigError: a new rule without a usable name.
        """
        if not self.is_new:
            return self.pattern
        if not self.name or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            found = "no name" if not self.name else "a name of unprintable characters or too many of them"
            raise ConfigError("providers.contexts", found, "a context or pattern such as insight.*")
        return self.name

    @property
    def change(self) -> Change:
        """The change of journal.json.

        Raises:
            ConfigError: it has no usable name, or a new rule says nothing.
        """
        target = self.target
        if self.is_new and not self.delta:
            raise ConfigError(
                config_path_of(target or ""), "a rule that says nothing", "a provider, tier, model or other"
            )
        return rule_change(target, self.delta, must_be_new=self.is_new)

    def drawn(self, now: Standing, troubles: tuple[Trouble, ...] = ()) -> RuleForm:
        """The form with all that was filled in."""
        if self.is_new:
            return view_models.new_form(now, form=self.form)
        return view_models.rule_form(now, self.pattern, form=self.form, troubles=troubles)


async def preview(request: Request) -> Response:
    """`POST rule/preview`: what a change would come to, as a part of the page; nothing is written."""
    form = await form_data.read_form(request)
    return await run_in_threadpool(_preview, request, _Wish(form))


def _preview(request: Request, wish: _Wish) -> Response:
    now = stand()
    try:
        found = propose(now, wish.change)
    except ConfigError as exc:
        return render(
            request, "settings/_preview.html", **view_models.proposal_context(None, trouble_of(exc)), moved=False
        )
    moved = now.stamp != wish.stamp
    return render(request, "settings/_preview.html", **view_models.proposal_context(found), moved=moved)


async def save(request: Request) -> Response:
    """`POST rule`: save a change, show what is wrong with it, or the conflict with what stands there now."""
    form = await form_data.read_form(request)
    return await run_in_threadpool(_save, request, _Wish(form))


def _save(request: Request, wish: _Wish) -> Response:
    try:
        target = wish.target
        change = wish.change
        if not wish.delta:
            return form_data.go(request, "Nothing was changed.", to=_back(target), kind="")
        config_change.save(change, in_short(target, wish.delta), expected=wish.stamp)
    except ConflictError:
        return _conflict(request, wish)
    except ConfigError as exc:
        return _refused(request, wish, exc)
    words = f"Saved: {in_short(target, wish.delta)}. It counts from the next call on, in every process."
    return form_data.go(request, words, to=_back(target), can_undo=True)


def _back(pattern: str | None) -> str:
    return f"{form_data.HOME}#{view_models.id_of(pattern)}"


def _refused(request: Request, wish: _Wish, exc: ConfigError) -> Response:
    """The form again, with what is wrong."""
    now = stand()
    if not now.is_known:
        raise exc
    trouble = trouble_of(exc)
    troubles: tuple[Trouble, ...] = (trouble,)
    proposal = None
    try:
        proposal = propose(now, wish.change)
        troubles = proposal.troubles or troubles
    except ConfigError as reason:
        trouble = trouble_of(reason)
    shown = wish.drawn(now, troubles)
    more = view_models.proposal_context(proposal, None if proposal and proposal.troubles else trouble)
    return _page(request, now, shown, Plans(now.snapshot), 400, **more)


def _conflict(request: Request, wish: _Wish) -> Response:
    """Both: what stands there now, and what was wanted; the input is kept."""
    now = stand()
    rows, proposal, failure = _both(now, wish)
    return render(
        request,
        "settings/conflict.html",
        409,
        now=now,
        rows=rows,
        wish=wish,
        carried={**wish.form, "stamp": now.mark},
        target=wish.name if wish.is_new else wish.pattern,
        **view_models.proposal_context(proposal, failure),
    )


def _both(now: Standing, wish: _Wish) -> tuple[list[tuple[str, str, str, str]], Proposal | None, Trouble | None]:
    """For each field that differs: label, as the page was drawn, as it stands now, as it is wanted."""
    base = base_from(wish.form.get("base", "{}"))
    current = entry_of(now, wish.name if wish.is_new else wish.pattern)
    after = applied(current, wish.delta)
    rows = [
        (field.label, entry_form.shown(field, base), entry_form.shown(field, current), entry_form.shown(field, after))
        for field in (*entry_form.FIELDS, *entry_form.AMOUNT_FIELDS)
        if field.name in wish.delta or base.get(field.name) != current.get(field.name)
    ]
    try:
        return rows, propose(now, wish.change), None
    except ConfigError as exc:
        return rows, None, trouble_of(exc)


async def remove(request: Request) -> Response:
    """`POST rule/remove`: take a rule out."""
    form = await form_data.read_form(request)
    name = _pattern(form)
    if name is None:
        raise HTTPException(400, detail="default: found the default, expected a rule; it can be changed, not removed")
    stamp = stamp_from(form.get("stamp", ""))
    await run_in_threadpool(config_change.save, removal(name), f"{name}: removed", expected=stamp)
    words = f"Removed the rule {name}. What is below it holds from the next call on."
    return form_data.go(request, words, can_undo=True)
