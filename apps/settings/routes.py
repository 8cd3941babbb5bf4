"""The addresses of the settings app, below /app/settings."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.host.page import render
from apps.settings import amounts, api, key_pages, raw_pages, rule_pages, view
from apps.settings.forms import MOST_BODY_BYTES
from apps.settings.standing import stand
from muse.diagnostics import check

__all__ = ["MOST_BODY_BYTES", "ROUTES", "workspace"]

workspace = view.workspace


def findings(request: Request) -> Response:
    """`GET check`: everything that `muse check` finds, in its words."""
    return render(request, "settings/_findings.html", report=check.examine())


def used(request: Request) -> Response:
    """`GET used` or `GET used?context=NAME`: what is used and left of each limit and budget, as a part of a page."""
    now = stand()
    context = request.query_params.get("context")
    return render(request, "settings/_used.html", rows=amounts.used(now, context), context=context, waiting=0)


ROUTES: list[BaseRoute] = [
    Route("/rule", rule_pages.show, methods=["GET"]),
    Route("/rule", rule_pages.save, methods=["POST"]),
    Route("/rule/preview", rule_pages.preview, methods=["POST"]),
    Route("/rule/remove", rule_pages.remove, methods=["POST"]),
    Route("/key", key_pages.save, methods=["POST"]),
    Route("/key/remove", key_pages.remove, methods=["POST"]),
    Route("/provider/{name}/test", key_pages.test, methods=["POST"]),
    Route("/check", findings, methods=["GET"]),
    Route("/used", used, methods=["GET"]),
    Route("/raw", raw_pages.show, methods=["GET"]),
    Route("/raw", raw_pages.save, methods=["POST"]),
    Route("/raw/preview", raw_pages.preview, methods=["POST"]),
    Route("/saves", raw_pages.history, methods=["GET"]),
    Route("/saves/{id}/restore", raw_pages.restore, methods=["POST"]),
    Route("/saves/{id}/restore", raw_pages.to_saves, methods=["GET"]),
    Route("/api/check", raw_pages.check, methods=["POST"]),
    Route("/api/complete", raw_pages.complete, methods=["POST"]),
    Route("/api/format", raw_pages.tidy, methods=["POST"]),
    Route("/api/providers", api.get_providers, methods=["GET"]),
    Route("/api/providers", api.put_providers, methods=["PUT"]),
    Route("/api/config", api.get_config, methods=["GET"]),
    Route("/api/config", api.put_config, methods=["PUT"]),
]
