"""The addresses of the settings app, below /app/settings."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.host.templating import render
from apps.settings import api, key_views, limit_fields, rule_views, view_models
from apps.settings.config_state import stand
from apps.settings.form_data import MOST_BODY_BYTES
from apps.settings.json_editor import views
from muse.diagnostics import check

__all__ = ["MOST_BODY_BYTES", "ROUTES", "workspace"]

workspace = view_models.workspace


def findings(request: Request) -> Response:
    """`GET check`: everything that `muse check` finds, in its words."""
    return render(request, "settings/_findings.html", report=check.examine())


def used(request: Request) -> Response:
    """`GET used` or `GET used?context=NAME`: what is used and left of each limit and budget, as a part of a page."""
    now = stand()
    context = request.query_params.get("context")
    return render(request, "settings/_used.html", rows=limit_fields.used(now, context), context=context, waiting=0)


ROUTES: list[BaseRoute] = [
    Route("/rule", rule_views.show, methods=["GET"]),
    Route("/rule", rule_views.save, methods=["POST"]),
    Route("/rule/preview", rule_views.preview, methods=["POST"]),
    Route("/rule/remove", rule_views.remove, methods=["POST"]),
    Route("/key", key_views.save, methods=["POST"]),
    Route("/key/remove", key_views.remove, methods=["POST"]),
    Route("/provider/{name}/test", key_views.test, methods=["POST"]),
    Route("/check", findings, methods=["GET"]),
    Route("/used", used, methods=["GET"]),
    Route("/raw", views.show, methods=["GET"]),
    Route("/raw", views.save, methods=["POST"]),
    Route("/raw/preview", views.preview, methods=["POST"]),
    Route("/saves", views.history, methods=["GET"]),
    Route("/saves/{id}/restore", views.restore, methods=["POST"]),
    Route("/saves/{id}/restore", views.to_saves, methods=["GET"]),
    Route("/api/check", views.check, methods=["POST"]),
    Route("/api/complete", views.complete, methods=["POST"]),
    Route("/api/format", views.tidy, methods=["POST"]),
    Route("/api/providers", api.get_providers, methods=["GET"]),
    Route("/api/providers", api.put_providers, methods=["PUT"]),
    Route("/api/config", api.get_config, methods=["GET"]),
    Route("/api/config", api.put_config, methods=["PUT"]),
]
