"""What the settings pages are made of: places in a text, masked secrets, forms, plans and suggestions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.settings import config_change, config_state, entry_form, json_scanner, redaction, route_table
from apps.settings.json_editor import json_completion
from apps.settings.json_editor.json_completion import Names
from muse.errors import ConfigError
from tests.journal_folder import JournalFolder
from tests.pages import client

SECRET = "sk-very-secret-1234"
NAMES = Names({"insight.*": "Insights"}, {"google": "Google", "openai": "OpenAI"}, {"gpt-6-luna": "OpenAI"})

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def paths(value: Any, way: json_scanner.Path = ()) -> set[json_scanner.Path]:
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {way}.union(*(paths(inner, (*way, key)) for key, inner in rows))


@given(st.dictionaries(st.text(max_size=8), _json, max_size=4), st.sampled_from([None, 2]))
def test_a_scan_finds_each_value_of_a_document_at_its_path(data: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(data, indent=indent)
    found = {
        place.path: text[place.start : place.end] for place in json_scanner.Scan(text).places if place.role == "value"
    }
    assert set(found) == paths(data)
    for path, piece in found.items():
        value: Any = data
        for step in path:
            value = value[step]
        assert json.loads(piece) == value


@given(st.text(alphabet='{}[]:,"\\ \nab1', max_size=40))
def test_a_text_that_is_no_json_is_scanned_and_masked_without_an_error(text: str) -> None:
    assert isinstance(redaction.masked(text), str)
    assert isinstance(json_completion.suggest(text, len(text) // 2, NAMES), list)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("providers.contexts['insight.*'].tier", ("providers", "contexts", "insight.*", "tier")),
        ("providers.limits[2].usd", ("providers", "limits", 2, "usd")),
        ('providers.contexts["it\'s"].fallbacks[0]', ("providers", "contexts", "it's", "fallbacks", 0)),
        ("env", ("env",)),
    ],
)
def test_a_path_of_a_problem_is_taken_apart(path: str, steps: json_scanner.Path) -> None:
    assert json_scanner.steps(path) == steps


@given(st.text(), st.integers(0, 9))
def test_any_name_in_a_path_is_found_again(name: str, number: int) -> None:
    assert json_scanner.steps(f"providers.contexts[{name!r}].allow[{number}]") == (
        "providers",
        "contexts",
        name,
        "allow",
        number,
    )


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"env": {"A_KEY": SECRET}}),
        json.dumps({"env": {"A": SECRET, "B": [SECRET, {"C": SECRET}]}}, indent=2),
        json.dumps({"env": SECRET}),
        json.dumps({"mcp_servers": {"x": {"command": "y", "env": {"TOKEN": SECRET}}}}),
        json.dumps({"identity": {"OPENAI_API_KEY": SECRET}}),
        '{"env": {"A_KEY: "' + SECRET + '"}}',
        '{"env": {"A_KEY": ' + SECRET + "}}",
        '{"env": {"A_KEY": , "' + SECRET + '"}',
        '{"env": {"A_KEY": "' + SECRET,
        '{env: {A: "' + SECRET + '"}}',
        "{'env': {'A': '" + SECRET + "'}}",
        '"env": {"A": "' + SECRET + '"}}',
        '{"providers": {}}, "env": {"A": "' + SECRET + '"}}',
        '{"providers": {"default": {}, "env": {"A": "' + SECRET + '"}}',
        '{"providers": {} "env": {"A": "' + SECRET + '"}}',
        '{"a": 1 "env": {"A": "' + SECRET + '"}}',
        '{"env" {"A": "' + SECRET + '"}}',
        '{"env"= {"A"= "' + SECRET + '"}}',
        '{"env": "A": "' + SECRET + '"}',
        '{ // the keys: mine\n"env": {"A": "' + SECRET + '"}}',
        '{ // keys:\n"env": {"A": "' + SECRET + '"}}',
        '{"x": "unclosed\n"env": {"A": "' + SECRET + '"}}',
        json.dumps([{"env": {"A": SECRET}}]),
        json.dumps({"ENV": {"A": SECRET}}),
        json.dumps({"providers": {"compatible": {"x": {"api_key": SECRET}}}}),
        json.dumps({"mcp_servers": {"x": {"headers": {"Authorization": f"Bearer {SECRET}"}}}}),
        json.dumps({"mcp_servers": {"x": {"url": f"http://me:{SECRET}@127.0.0.1/"}}}),
        json.dumps({"mcp_servers": {"x": {"url": f"http://{SECRET}@127.0.0.1/"}}}),
        json.dumps({"mcp_servers": {"x": {"url": f"http://127.0.0.1/mcp?team=1&api_key={SECRET}"}}}),
        json.dumps({"mcp_servers": {"x": {"command": "x", "args": ["--api-token", SECRET, "-v"]}}}),
        json.dumps({"mcp_servers": {"x": {"command": "x", "args": ["-v", f"--token={SECRET}"]}}}),
        json.dumps({"mcp_servers": {"x": {"command": "x", "args": [f"sk-proj-{SECRET}"]}}}),
    ],
)
def test_no_secret_is_in_a_masked_text_even_of_a_broken_file(text: str) -> None:
    assert SECRET not in redaction.masked(text)


def test_what_only_looks_a_little_like_a_secret_is_shown() -> None:
    args = ["--max-tokens", "500", "-m", "token_server", "--port=80"]
    data = {"mcp_servers": {"x": {"command": "x", "args": args}, "y": {"url": "http://127.0.0.1/mcp?team=1"}}}
    assert json.loads(redaction.masked(json.dumps(data))) == data


@pytest.mark.parametrize("text", ["[," * 50_000, "{" * 50_000, '"a":' * 50_000, '{"a":[' * 20_000])
def test_a_text_that_opens_without_end_takes_no_endless_memory(text: str) -> None:
    scan = json_scanner.Scan(text)
    assert max(len(path) for path in (scan.due[0], *(place.path for place in scan.places))) <= 100


def test_the_lines_of_a_long_text_are_found_in_one_pass() -> None:
    text = json.dumps({f"key {number}": {"x": [1, 2]} for number in range(5000)}, indent=1)
    lines = json_scanner.lines_by_path(text)
    assert lines["key 4999",] == text[: text.index('"key 4999"')].count("\n") + 1
    assert lines["key 9", "x", 1] == lines["key 9",] + 3


def test_a_masked_text_becomes_the_same_again() -> None:
    text = json.dumps({"env": {"A": SECRET, "B": ""}, "providers": {"default": {"tier": 2}}}, indent=4)
    shown = redaction.masked(text)
    assert json.loads(shown)["env"] == {"A": redaction.SHOWN, "B": ""}
    assert redaction.unmasked(shown, text) == (text, ())


def test_a_sign_for_a_secret_that_is_not_there_is_named() -> None:
    shown = json.dumps({"env": {"NEW": redaction.SHOWN}})
    assert redaction.unmasked(shown, "{}") == (shown, (("env", "NEW"),))


def test_a_form_that_is_left_alone_changes_nothing_even_of_unusable_entries() -> None:
    entry = {"tier": "flash", "allow": [], "fallbacks": [{"provider": "openai", "tier": 3}, 7], "odd": 1}
    form = {field.name: entry_form.shown(field, entry) for field in entry_form.FIELDS}
    assert entry_form.wanted(form, entry) == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("provider", "openai", "openai"),
        ("tier", "3", 3),
        ("tier", "flash", "flash"),
        ("fallbacks", "anthropic\r\nprovider:openai,tier:3", ["anthropic", {"provider": "openai", "tier": 3}]),
        ("fallbacks", "provider:ollama,model:qwen3:4b", [{"provider": "ollama", "model": "qwen3:4b"}]),
        ("fallback_on", "blocked, truncated", ["blocked", "truncated"]),
        ("allow", "nobody", []),
        ("local_only", "no", False),
        ("timeout_s", "2.5", 2.5),
        ("timeout_s", "nan", "nan"),
        ("timeout_s", "9" * 5000, "9" * 5000),
        ("retries", "", None),
    ],
)
def test_a_field_is_read_as_its_kind_and_what_cannot_be_stays_text(name: str, text: str, value: Any) -> None:
    assert entry_form.wanted({name: text}, {"retries": 1} if name == "retries" else {}) == {name: value}


def test_an_entry_that_says_nothing_any_more_is_taken_out() -> None:
    data = {"providers": {"contexts": {"a.b": {"tier": 1}}}}
    config_change.rule_change("a.b", {"tier": None})(data)
    assert data == {"providers": {"contexts": {}}}


@pytest.mark.parametrize(
    "change", [config_change.rule_change("a.b", {"tier": 1}), config_change.removal("a.b")], ids=["change", "removal"]
)
@pytest.mark.parametrize("contexts", [[], "x", None])
def test_a_change_does_not_touch_a_section_that_is_no_object(change: config_change.Change, contexts: Any) -> None:
    with pytest.raises(ConfigError, match=r"providers\.contexts: found (list|str|NoneType)"):
        change({"providers": {"contexts": contexts}})


def test_a_rule_that_says_null_can_be_removed() -> None:
    data = {"providers": {"contexts": {"a.b": None}}}
    config_change.removal("a.b")(data)
    assert data == {"providers": {"contexts": {}}}


@pytest.mark.parametrize("base", ["[]", "{", '{"a":' * 5000, "["])
def test_a_form_that_was_tampered_with_is_refused(base: str) -> None:
    with pytest.raises(ConfigError, match="base: found"):
        entry_form.base_from(base)


def test_a_preview_names_every_context_that_moves_and_no_other(journal: JournalFolder) -> None:
    journal.route(default={"provider": "google", "tier": 2}, contexts={"insight.*": {"provider": "anthropic"}})
    found = config_change.propose(config_state.stand(), config_change.rule_change("observe.*", {"provider": "local"}))
    assert {move.name for move in found.moves} > {"observe.enrich", "observe.summarize", "observe.*"}
    assert all(move.name.startswith("observe.") for move in found.moves)
    assert all("local" in move.after.served for move in found.moves)
    assert json.loads(journal.config.read_text()) == {
        "providers": {
            "default": {"provider": "google", "tier": 2},
            "contexts": {"insight.*": {"provider": "anthropic"}},
        }
    }


def test_a_preview_shows_a_route_that_a_bound_would_forbid(journal: JournalFolder) -> None:
    journal.route(default={"provider": "google"})
    found = config_change.propose(
        config_state.stand(), config_change.rule_change("detect.created", {"local_only": True})
    )
    [move] = found.moves
    assert move.name == "detect.created"
    assert "local_only" in move.after.problem


def test_a_preview_of_a_new_endpoint_routes_to_it(journal: JournalFolder) -> None:
    journal.route(default={"provider": "google"})
    text = json.dumps(
        {
            "providers": {
                "default": {"provider": "bench", "tier": 1},
                "compatible": {"bench": {"base_url": "http://127.0.0.1:1/v1", "models": {"1": "m1"}}},
            }
        }
    )
    found = config_change.propose_text(config_state.stand(), text)
    assert found.troubles == ()
    assert route_table.Plans(config_state.stand().snapshot).plan("").served.startswith("google")
    assert found.after.plan("").served == "bench m1"


def labels(marked: str) -> list[str]:
    cursor = marked.index("|")
    return [row.label for row in json_completion.suggest(marked.replace("|", ""), cursor, NAMES)]


@pytest.mark.parametrize(
    ("marked", "first"),
    [
        ('{"pro|"}', "providers"),
        ('{"providers": {"contexts": {"x": {"ti|"}}}}', "tier"),
        ('{"providers": {"contexts": {"ins|"}}}', "insight.*"),
        ('{"providers": {"contexts": {"x": {"provider": "op|"}}}}', '"openai"'),
        ('{"providers": {"contexts": {"x": {"tier": |', "1"),
        ('{"providers": {"contexts": {"x": {"on_limit": "|"', '"wait"'),
        ('{"providers": {"default": {"local_only": f|}}}', "false"),
        ('{"providers": {"default": {"fallbacks": ["goo|"]}}}', '"google"'),
        ('{"providers": {"default": {"fallbacks": [{"mo|"}]}}}', "model"),
        ('{"providers": {"default": {"model": "gpt|"}}}', '"gpt-6-luna"'),
        ('{"providers": {"models": {"openai": {"1": "|"}}}}', '"gpt-6-luna"'),
        ("|", "{"),
    ],
)
def test_what_may_stand_at_a_place_is_suggested(marked: str, first: str) -> None:
    assert labels(marked)[0] == first


def test_keys_that_are_there_already_are_not_suggested() -> None:
    assert "tier" not in labels('{"providers": {"default": {"tier": 2, "|": 1}}}')


def test_nothing_is_suggested_after_a_value_that_is_whole() -> None:
    assert labels('{"$schema": "x"|}') == []


def test_a_suggestion_takes_the_place_of_the_word_it_completes() -> None:
    text = '{"providers": {"default": {"provider": "goo", "tier": 2}}}'
    [row] = json_completion.suggest(text, text.index("goo") + 3, NAMES)
    assert json.loads(text[: row.start] + row.insert + text[row.end :])["providers"]["default"]["provider"] == "google"


def test_taking_an_endpoint_out_that_a_rule_names_is_a_problem(journal: JournalFolder) -> None:
    bench = {"bench": {"base_url": "http://127.0.0.1:1/v1", "models": {"1": "m1"}}}
    journal.route(contexts={"a.b": {"provider": "bench"}}, compatible=bench)
    text = json.dumps({"providers": {"contexts": {"a.b": {"provider": "bench"}}}})
    [trouble] = config_change.propose_text(config_state.stand(), text).troubles
    assert trouble.path == "providers.contexts['a.b'].provider"


@pytest.mark.parametrize("default", [{"provider": "azure"}, {"provider": "nobody"}, {"model": ""}, []])
def test_a_default_that_leads_nowhere_stops_no_page(journal: JournalFolder, default: Any) -> None:
    journal.route(default=default)
    found = client(journal)
    for path in ("", "rule?default=1", "check", "api/providers"):
        assert found.get(f"/app/settings/{path}").status_code == 200
