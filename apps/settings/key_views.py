"""Keys and live tests of providers; a key goes into the journal's `.env` and never comes back out to a page."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from apps.host.templating import render
from apps.settings import form_data, provider_status
from apps.settings.config_state import stand
from apps.settings.provider_status import Card
from muse.diagnostics import health
from muse.errors import ConfigError
from muse.journal import dotenv_file, secrets


async def save(request: Request) -> Response:
    """`POST key`: save a key; the next call of every process uses it."""
    form = await form_data.read_form(request)
    name = _known(form.get("env_key", ""))
    await run_in_threadpool(_save, name, form.get("value", ""))
    return form_data.go(request, *_outcome(name), to=_back(form.get("provider", "")))


def _save(name: str, value: str) -> None:
    """Save a key, and forget what tests with another one have shown."""
    dotenv_file.set_value(name, value)
    for provider in provider_status.env_keys().get(name, ()):
        health.forget(provider)


async def remove(request: Request) -> Response:
    """`POST key/remove`: take a key out of the journal's `.env`."""
    form = await form_data.read_form(request)
    name = _known(form.get("env_key", ""))
    was_there = await run_in_threadpool(dotenv_file.remove_value, name)
    words = f"{name} is deleted from the journal's .env." if was_there else f"{name} was not in the journal's .env."
    left = secrets.key_source(name)
    also = f" Calls still find one in {left}." if left else ""
    return form_data.go(request, words + also, to=_back(form.get("provider", "")), kind="warn" if left else "ok")


def test(request: Request) -> Response:
    """`POST provider/{name}/test`: ask its models for a word; the card again, with what came of it."""
    name = request.path_params["name"]
    now = stand()
    provider_status.card(name, now.config)
    problem = ""
    try:
        health.probe_provider(name)
    except ConfigError as exc:
        problem = secrets.redact(str(exc))
    shown: Card = provider_status.card(name, now.config)
    if request.headers.get("HX-Request") != "true":
        words = problem or f"{shown.label}: {_results(shown)}"
        return form_data.go(request, words, to=_back(name), kind="bad" if problem else "ok")
    return render(request, "settings/_tested.html", card=shown, problem=problem, tested=True)


def _results(card: Card) -> str:
    asked = [f"{model.name} {model.health.state}" for model in card.models if model.health is not None]
    return ", ".join(asked) or "no model was asked"


def _known(name: str) -> str:
    """The name of a provider's key.

    Raises:
        ConfigError: no provider has a key of that name.
    """
    known = provider_status.env_keys()
    if name not in known:
        raise ConfigError("env_key", repr(name[:60]), f"one of {', '.join(sorted(known))}")
    return name


def _outcome(name: str) -> tuple[str, ...]:
    place = secrets.key_source(name)
    if place == str(dotenv_file.dotenv_path()):
        told = "Every process uses it from its next call on; whether the provider accepts it is not tested yet."
        return (f"{name} is saved in the journal's .env. {told}",)
    return (f"{name} is saved in the journal's .env, but {place} has another, which goes before it.",)


def _back(provider: str) -> str:
    known = {row for names in provider_status.env_keys().values() for row in names}
    return f"{form_data.HOME}#provider-{provider}" if provider in known else form_data.HOME
