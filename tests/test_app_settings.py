"""The pages of routes: what they show and why, previews, saves, conflicts, hostile text; over a journal in a folder."""

from __future__ import annotations

import html
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from muse import models
from muse.diagnostics import call_sites, check
from muse.journal.config import parse_config
from tests.journal_folder import JournalFolder, start
from tests.pages import client

HOME = "/app/settings/"
SCRIPT = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
ROUTES = {
    "default": {"provider": "google", "tier": 2},
    "contexts": {"insight.*": {"provider": "anthropic"}, "detect.created": {"provider": "local"}},
}


@pytest.fixture(name="site")
def _site(journal: JournalFolder) -> TestClient:
    """A client of the pages over a journal with a few rules."""
    journal.route(**ROUTES)
    return client(journal)


def hidden(page: str, name: str) -> str:
    """The value of a hidden field."""
    match = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert match is not None, f"no field {name}"
    return html.unescape(match[1])


def form_of(site: TestClient, query: str, **fields: str) -> dict[str, str]:
    """The form of an entry as it is drawn, with some fields filled in."""
    page = site.get(f"{HOME}rule?{query}").text
    key, _, value = query.partition("=")
    return {"stamp": hidden(page, "stamp"), "base": hidden(page, "base"), key: value, **fields}


def words(page: str) -> str:
    """What a page says, without its marks."""
    inline = re.sub(r"</?(code|a|strong)\b[^>]*>", "", page)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", inline)))


def rules(journal: JournalFolder) -> Any:
    return json.loads(journal.config.read_text())["providers"]["contexts"]


def test_the_page_lists_every_known_context_with_its_route(site: TestClient) -> None:
    said = words(site.get(HOME).text)
    for name in models.get_context_registry():
        assert name in said
        assert f"{models.route(name).provider} {models.route(name).model}" in said


def test_each_context_tells_why_it_has_its_route_with_every_rule(site: TestClient) -> None:
    said = words(site.get(f"{HOME}rule?context=insight.*").text)
    assert "providers.contexts['insight.*'], the exact entry in journal.json" in said
    assert "provider overruled by rule 1" in said


def test_a_context_that_the_registry_does_not_have_is_explained_too(site: TestClient) -> None:
    assert "google" in words(site.get(f"{HOME}rule?context=app.nobody.knows").text)


def test_a_preview_says_what_would_move_and_writes_nothing(site: TestClient, journal: JournalFolder) -> None:
    before = journal.config.read_bytes()
    found = site.post(f"{HOME}rule/preview", data=form_of(site, "context=insight.*", provider="openai", tier="1"))
    assert found.status_code == 200
    said = words(found.text)
    assert "1 route would change" in said
    assert "openai gpt" in said
    assert "No call of the last 30 days is in the token log." in said
    assert journal.config.read_bytes() == before
    assert not (journal.path / "config" / "history").exists()


def test_a_preview_says_what_the_calls_of_the_last_days_would_have_cost(
    site: TestClient, journal: JournalFolder
) -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 1000, "total_tokens": 1_001_000}
    models.log_token_usage("claude-sonnet-5-5", usage, "insight.daily")
    found = site.post(f"{HOME}rule/preview", data=form_of(site, "context=insight.*", provider="openai", tier="1"))
    said = words(found.text)
    assert "of 1 calls in the last 30 days, 1 would have gone elsewhere" in said
    assert "insight.daily 1 openai" in said
    assert re.search(r"Together 1 \$\d", said)


def test_what_if_prices_an_endpoint_that_is_only_proposed(site: TestClient) -> None:
    models.log_token_usage(
        "claude-sonnet-5-5", {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}, "insight.x"
    )
    bench = {"bench": {"base_url": "http://127.0.0.1:1/v1", "models": {"1": "m1", "2": "m2"}}}
    text = json.dumps(
        {
            "providers": {
                "default": ROUTES["default"],
                "contexts": {"insight.*": {"provider": "bench"}},
                "compatible": bench,
            }
        }
    )
    stamp = hidden(site.get(f"{HOME}raw").text, "stamp")
    said = words(site.post(f"{HOME}raw/preview", data={"stamp": stamp, "text": text}).text)
    assert "insight.x 1 bench m2 from anthropic" in said
    assert "no route" not in said


def test_a_save_counts_for_the_next_call_of_another_process(site: TestClient, journal: JournalFolder) -> None:
    code = (
        "import sys\nfrom muse import models\n"
        "for line in sys.stdin:\n    found = models.route(line.strip())\n    print(found.provider, flush=True)\n"
    )
    with start(code) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        print("insight.daily", file=other.stdin, flush=True)
        assert other.stdout.readline() == "anthropic\n"
        answer = site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", provider="openai"))
        assert "Saved: insight.*: provider openai" in words(answer.text)
        print("insight.daily", file=other.stdin, flush=True)
        assert other.stdout.readline() == "openai\n"
        other.stdin.close()
    assert models.route("insight.daily").provider == "openai"


def test_all_fields_of_an_entry_can_be_saved(site: TestClient, journal: JournalFolder) -> None:
    fields = {
        "model": "claude-opus-5-5",
        "fallbacks": "local\nprovider:openai,tier:3",
        "fallback_on": "blocked",
        "allow": "anthropic, local, openai",
        "local_only": "no",
        "interactive": "yes",
        "timeout_s": "30",
        "retries": "4",
        "on_limit": "raise",
        "first_token_s": "2.5",
        "stall_s": "9",
        "cache_s": "60",
    }
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", **fields))
    assert rules(journal)["insight.*"] == {
        "provider": "anthropic",
        "model": "claude-opus-5-5",
        "fallbacks": ["local", {"provider": "openai", "tier": 3}],
        "fallback_on": ["blocked"],
        "allow": ["anthropic", "local", "openai"],
        "local_only": False,
        "interactive": True,
        "timeout_s": 30,
        "retries": 4,
        "on_limit": "raise",
        "first_token_s": 2.5,
        "stall_s": 9,
        "cache_s": 60,
    }
    assert parse_config(json.loads(journal.config.read_text()))[1] == ()


def test_a_limit_and_a_budget_of_a_context_are_set_and_taken_out(site: TestClient, journal: JournalFolder) -> None:
    amounts = {"limit.in_flight": "2", "limit.usd_per_day": "1.5", "budget.usd": "20", "budget.window": "month"}
    preview = site.post(f"{HOME}rule/preview", data=form_of(site, "context=insight.*", **amounts))
    assert "limit: insight.*, 2 calls at once, $1.50 a day" in words(preview.text)
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", **amounts))
    providers = json.loads(journal.config.read_text())["providers"]
    assert providers["limits"] == [{"context": "insight.*", "in_flight": 2, "usd_per_day": 1.5}]
    assert providers["budgets"] == [{"context": "insight.*", "usd": 20, "window": "month"}]
    assert "insight.*, $20.00 a month" in words(site.get(f"{HOME}rule?context=insight.*").text)
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", **dict.fromkeys(amounts, "")))
    assert json.loads(journal.config.read_text())["providers"] == ROUTES


def test_a_limit_of_others_is_left_alone_by_that_of_all_calls(journal: JournalFolder) -> None:
    rows = [{"provider": "openai", "in_flight": 3}, {"context": "insight.*", "in_flight": 4}]
    journal.route(limits=rows)
    site = client(journal)
    site.post(f"{HOME}rule", data=form_of(site, "default=1", **{"limit.in_flight": "9"}))
    assert json.loads(journal.config.read_text())["providers"]["limits"] == [*rows, {"in_flight": 9}]


def test_a_limit_that_is_not_usable_is_refused_at_its_field(site: TestClient, journal: JournalFolder) -> None:
    before = journal.config.read_bytes()
    found = site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", **{"limit.in_flight": "many"}))
    assert found.status_code == 400
    assert "providers.limits[0].in_flight: found 'many', expected a whole number" in words(found.text)
    assert 'aria-invalid="true"' in found.text
    assert journal.config.read_bytes() == before


def test_the_default_can_be_changed(site: TestClient) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "default=1", provider="local", tier=""))
    assert models.route("").provider == "local"


def test_a_new_rule_for_a_pattern_is_saved_and_one_that_is_there_is_not_overwritten(
    site: TestClient, journal: JournalFolder
) -> None:
    form = form_of(site, "new=1", name="observe.*", provider="local")
    assert site.post(f"{HOME}rule", data=form).status_code == 200
    assert rules(journal)["observe.*"] == {"provider": "local"}
    again = site.post(f"{HOME}rule", data=form_of(site, "new=1", name="observe.*", tier="1"))
    assert again.status_code == 400
    assert "providers.contexts['observe.*']: found a rule that is there already" in words(again.text)
    assert rules(journal)["observe.*"] == {"provider": "local"}


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "a\nb"}, {"name": "x" * 500}, {"name": "a.b"}])
def test_a_new_rule_without_a_name_or_content_is_refused(site: TestClient, fields: dict[str, str]) -> None:
    found = site.post(
        f"{HOME}rule", data=form_of(site, "new=1", **({"tier": "1"} if fields["name"] != "a.b" else {}), **fields)
    )
    assert found.status_code == 400
    assert "providers.contexts" in words(found.text)


def test_a_route_to_a_provider_that_cannot_answer_says_so_in_the_list_and_before_saving(site: TestClient) -> None:
    said = words(site.get(HOME).text)
    assert re.search(r"\d providers? that serves? contexts ha", said)
    assert said.count("Anthropic") > 1
    assert "claude-sonnet-5-5 tier 2 by" in said  # a key that is missing is said once, not in every row
    assert "Anthropic (Claude): no key" in words(site.get(f"{HOME}rule?context=insight.*").text)
    for provider, is_said in (("openai", True), ("local", False)):
        form = form_of(site, "context=insight.*", provider=provider)
        assert ("no key" in words(site.post(f"{HOME}rule/preview", data=form).text)) == is_said


def test_a_save_leads_to_its_undo(site: TestClient) -> None:
    form = form_of(site, "context=insight.*", tier="1")
    assert "Undo it" in words(site.post(f"{HOME}rule", data=form).text)
    nothing = form_of(site, "context=insight.*")
    assert "Undo it" not in words(site.post(f"{HOME}rule", data=nothing).text)


def test_a_rule_is_removed(site: TestClient, journal: JournalFolder) -> None:
    said = site.post(f"{HOME}rule/remove", data=form_of(site, "context=insight.*")).text
    assert "Removed the rule insight.*" in words(said)
    assert "insight.*" not in rules(journal)
    gone = site.post(f"{HOME}rule/remove", data=form_of(site, "context=insight.*"))
    assert gone.status_code == 400


@pytest.mark.parametrize(
    ("field", "text", "problem"),
    [
        ("provider", "nobody", "providers.contexts['insight.*'].provider: found 'nobody', expected one of anthropic"),
        ("tier", "9", "providers.contexts['insight.*'].tier: found 9, expected 1, 2 or 3"),
        ("timeout_s", "soon", "providers.contexts['insight.*'].timeout_s: found 'soon', expected a number"),
        ("fallbacks", "someone", "providers.contexts['insight.*'].fallbacks[0]: found 'someone'"),
        ("allow", "anthropic, x", "providers.contexts['insight.*'].allow[1]: found 'x'"),
        ("retries", "99", "providers.contexts['insight.*'].retries: found 99, expected a number from 0 to 20"),
    ],
)
def test_what_is_not_usable_is_refused_with_its_path_and_kept_in_the_form(
    site: TestClient, journal: JournalFolder, field: str, text: str, problem: str
) -> None:
    before = journal.config.read_bytes()
    form = form_of(site, "context=insight.*", **{field: text})
    assert problem in words(site.post(f"{HOME}rule/preview", data=form).text)
    found = site.post(f"{HOME}rule", data=form)
    assert found.status_code == 400
    assert problem in words(found.text)
    assert text in found.text
    assert 'aria-invalid="true"' in found.text
    assert journal.config.read_bytes() == before


def test_a_bad_entry_is_shown_in_its_place_and_blocks_nothing_else(journal: JournalFolder) -> None:
    journal.write({"providers": {**ROUTES, "contexts": {"a.b": {"tier": "flash"}, "insight.*": {}}, "odd": 1}, "x": 2})
    site = client(journal)
    said = words(site.get(HOME).text)
    for problem in ("providers.contexts['a.b'].tier: found 'flash'", "providers.odd", "x: found an unknown key"):
        assert problem in said
    assert "1 problem" in said
    answer = site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", provider="local"))
    assert answer.status_code == 200
    assert rules(journal) == {"a.b": {"tier": "flash"}, "insight.*": {"provider": "local"}}


def test_the_page_says_what_check_says(journal: JournalFolder) -> None:
    journal.write({"providers": {"contexts": {"nothing.like.this": {"tier": 1}}}})
    site = client(journal)
    said = words(site.get(f"{HOME}check").text)
    found = check.examine().findings
    assert {finding.kind for finding in found} > {"key"}
    for finding in found:
        assert (str(finding) in said) == (finding.kind != "key")  # the page itself says which keys are missing


def test_two_browsers_conflict_and_the_second_may_apply_on_top(journal: JournalFolder, site: TestClient) -> None:
    other = client(journal)
    mine = form_of(site, "context=insight.*", tier="1")
    theirs = form_of(other, "context=insight.*", timeout_s="5")
    assert other.post(f"{HOME}rule", data=theirs).status_code == 200
    found = site.post(f"{HOME}rule", data=mine)
    assert found.status_code == 409
    said = words(found.text)
    assert "Tier not said not said 1" in said
    assert "Seconds for a call not said 5 5" in said
    assert rules(journal)["insight.*"] == {"provider": "anthropic", "timeout_s": 5}
    again = {**mine, "stamp": hidden(found.text, "stamp")}
    assert {**again, "csrf_token": ""}.items() >= {
        name: hidden(found.text, name) for name in ("base", "tier", "context")
    }.items()
    assert site.post(f"{HOME}rule", data=again).status_code == 200
    assert rules(journal)["insight.*"] == {"provider": "anthropic", "timeout_s": 5, "tier": 1}


def test_a_hand_edit_while_the_page_is_open_is_a_conflict(site: TestClient, journal: JournalFolder) -> None:
    form = form_of(site, "context=insight.*", tier="1")
    journal.route(contexts={"insight.*": {"provider": "local"}})
    before = journal.config.read_bytes()
    assert site.post(f"{HOME}rule", data=form).status_code == 409
    assert site.post(f"{HOME}rule/remove", data=form).status_code == 409
    assert "changed on disk" in words(site.post(f"{HOME}rule/preview", data=form).text)
    assert journal.config.read_bytes() == before


def test_a_file_that_was_broken_by_hand_keeps_the_input_and_says_where(
    site: TestClient, journal: JournalFolder
) -> None:
    form = form_of(site, "context=insight.*", tier="1")
    journal.write('{"providers": {\n  "default": oops}}')
    found = site.post(f"{HOME}rule", data=form)
    assert found.status_code == 409
    said = words(found.text)
    assert "line 2" in said
    assert hidden(found.text, "tier") == "1"


def test_a_request_without_the_token_changes_nothing(site: TestClient, journal: JournalFolder) -> None:
    before = journal.config.read_bytes()
    form = form_of(site, "context=insight.*", tier="1")
    site.headers.pop("X-CSRF-Token")
    assert site.post(f"{HOME}rule", data=form).status_code == 403
    assert journal.config.read_bytes() == before


@pytest.mark.parametrize("stamp", ["", "1-2", "a-b-c", "9" * 99])
def test_a_form_without_a_usable_stamp_is_refused(site: TestClient, stamp: str) -> None:
    form = form_of(site, "context=insight.*", tier="1") | {"stamp": stamp}
    assert site.post(f"{HOME}rule", data=form).status_code == 400


def test_without_a_file_the_page_opens_and_the_first_save_makes_one(journal: JournalFolder) -> None:
    site = client(journal)
    assert site.get(HOME).status_code == 200
    assert site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", provider="local")).status_code == 200
    assert rules(journal) == {"insight.*": {"provider": "local"}}
    assert journal.config.stat().st_mode & 0o777 == 0o600


def test_what_check_finds_is_asked_by_many_browsers_at_once(site: TestClient) -> None:
    call_sites._kept.clear()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: site.get(f"{HOME}check"), range(16)))
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.text for answer in found}) == 1
