"""A content policy's refusal is told from a refused key or account, however a provider spells it."""

from __future__ import annotations

from typing import Any

import pytest

from muse.errors import AuthError, BlockedReply, MuseError, QuotaError, RequestError
from tests.desk import WAYS, Desk
from tests.loopback.server import Answer
from tests.provider_cases import FAMILY, GATEWAYS, WIRES, Case

OPENAI, ANTHROPIC, GOOGLE = FAMILY
GATEWAY = GATEWAYS[0]
ROUTER = {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["violence"], "flagged_input": "x"}}}
AZURE = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "code": "content_filter",
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
REFUSALS: list[tuple[Case, int, dict[str, Any]]] = [
    (GATEWAY, 403, ROUTER),
    (GATEWAY, 403, {"error": {"code": 403, "message": "input flagged by moderation"}}),
    (GATEWAY, 403, {"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_DATA_LEAKAGE"}),
    (GATEWAY, 400, AZURE),
    (GATEWAY, 400, {"error": {"message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    (GATEWAY, 400, {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}),
    (GATEWAY, 400, {"error": {"message": "rejected because it was considered high risk", "type": "content_filter"}}),
    (GATEWAY, 400, {"error": {"code": "data_inspection_failed", "message": "Input data may contain it."}}),
    (GATEWAY, 400, {"error": {"code": "InputTextSensitiveContentDetected", "message": "no"}}),
    (GATEWAY, 451, {"error": {"message": "The prompt was blocked by our safety system."}}),
    (OPENAI, 400, {"error": {"code": "content_policy_violation", "message": "no"}}),
    (OPENAI, 400, {"error": {"code": "moderation_blocked", "message": "no"}}),
    (OPENAI, 400, {"error": {"code": "invalid_prompt", "message": "your prompt was flagged"}}),
    (OPENAI, 400, {"error": {"message": "Your request was rejected as a result of our safety system."}}),
    (
        ANTHROPIC,
        400,
        {"error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}},
    ),
    (
        GOOGLE,
        400,
        {"error": {"status": "INVALID_ARGUMENT", "message": "It violates Google's Responsible AI practices"}},
    ),
    (
        GOOGLE,
        400,
        {"error": {"status": "INVALID_ARGUMENT", "message": "no", "details": [{"reason": "PROHIBITED_CONTENT"}]}},
    ),
]
OTHERS: list[tuple[Case, int, dict[str, Any], type[MuseError]]] = [
    (GATEWAY, 403, {"error": {"message": "Your API key has no access to the moderation endpoint"}}, AuthError),
    (GATEWAY, 403, {"error": {"message": "Your account was flagged for suspicious activity"}}, AuthError),
    (GATEWAY, 403, {"error": {"message": "Key limit exceeded", "metadata": {"provider_name": "x"}}}, AuthError),
    (
        OPENAI,
        403,
        {"error": {"code": "unsupported_country_region_territory", "message": "Country not supported"}},
        AuthError,
    ),
    (OPENAI, 403, {"error": {"message": "Your organization was disabled for violating our usage policies"}}, AuthError),
    (OPENAI, 401, {"error": {"message": "content policy"}}, AuthError),
    (
        OPENAI,
        400,
        {"error": {"message": "Invalid value: 'input_text'. Supported values are: 'output_text'."}},
        RequestError,
    ),
    (ANTHROPIC, 403, {"error": {"type": "permission_error", "message": "no permission for this resource"}}, AuthError),
    (ANTHROPIC, 400, {"error": {"message": "Your credit balance is too low to access the API"}}, QuotaError),
    (GOOGLE, 403, {"error": {"status": "PERMISSION_DENIED", "message": "Permission denied on resource"}}, AuthError),
    (GOOGLE, 400, {"error": {"status": "INVALID_ARGUMENT", "message": "text content is empty"}}, RequestError),
]


@pytest.mark.parametrize(("case", "status", "body"), REFUSALS, ids=lambda value: str(value)[:60])
def test_a_content_policy_refuses_what_was_said(desk: Desk, case: Case, status: int, body: dict[str, Any]) -> None:
    desk.use(case)
    desk.play(case, Answer(body, status))
    error = desk.fail("sync")
    assert isinstance(error, BlockedReply), repr(error)
    assert (error.provider, error.model) == (case.name, case.model)
    assert len(desk.server.requests) == 1
    assert desk.last_line()["error"]["class"] == "BlockedReply"


@pytest.mark.parametrize(("case", "status", "body", "kind"), OTHERS, ids=lambda value: str(value)[:60])
def test_a_refused_key_account_or_request_is_no_refused_content(
    desk: Desk, case: Case, status: int, body: dict[str, Any], kind: type[MuseError]
) -> None:
    desk.use(case)
    desk.play(case, Answer(body, status))
    error = desk.fail("sync")
    assert type(error) is kind, repr(error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", WIRES, ids=str)
def test_a_refusal_is_the_same_in_every_way_and_says_why(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    body = {"error": {"code": 403, "message": "input flagged by moderation"}}
    desk.play(case, Answer(ROUTER if case is GATEWAY else body, 403))
    error = desk.fail(way)
    assert isinstance(error, BlockedReply), repr(error)
    assert "violence" in str(error) or case is not GATEWAY


def test_a_refusal_falls_back_only_where_journal_json_says_so(desk: Desk) -> None:
    desk.reach(OPENAI, ANTHROPIC)
    rules = {
        "provider": "openai",
        "model": OPENAI.model,
        "fallbacks": [{"provider": "anthropic", "model": ANTHROPIC.model}],
    }
    desk.journal.route(default=rules)
    desk.play(OPENAI, Answer(AZURE, 400))
    assert isinstance(desk.fail("sync"), BlockedReply)
    desk.journal.route(default={**rules, "fallback_on": ["blocked"]})
    desk.play(OPENAI, Answer(AZURE, 400))
    desk.play(ANTHROPIC, "text")
    assert desk.ask("sync").provider == "anthropic"
