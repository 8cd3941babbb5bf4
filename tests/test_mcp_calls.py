"""Calls of tools on MCP servers: sent once whatever comes back, refused where the server came back as another one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muse import agents
from muse.agent_loop.mcp_client import servers_of
from muse.agent_loop.server_addresses import secrets_in
from muse.errors import ConfigError
from muse.journal import secrets
from muse.types.redaction import shown_address
from tests.agent_run import calls, replay
from tests.journal_folder import JournalFolder
from tests.raw_server import Answer, RawWeb, answer_to, calls_in, one, stdio, tool

pytestmark = pytest.mark.usefixtures("journal")
TABLE = one(tool("pay"))
READING = one(tool("pay", annotations={"readOnlyHint": True}))
CODES = (-32700, -32600, -32601, -32602, -32603, -32000, -32001, -32002, -32099, 0, 42)


@pytest.mark.parametrize("table", [TABLE, READING], ids=["writes", "reads"])
@pytest.mark.parametrize("code", CODES)
async def test_an_error_over_stdio_is_the_tools_answer(code: int, table: dict[str, Any], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    refused = {"error": {"code": code, "message": "balance too low"}}
    script, run = replay(calls("pay"), "Told.", mcp_servers={"a": stdio({**table, "call": refused}, seen)})
    with script:
        assert await run.answer() == "Told."
    assert len(calls_in(seen)) == 1
    assert "balance too low" in run.result()["error"]


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("code", [-32600, -32000, -32001])
async def test_an_error_over_http_is_the_tools_answer(code: int, status: int) -> None:
    def answer(message: Mapping[str, Any], _: int) -> tuple[int, Answer | None]:
        if message["method"] == "tools/call":
            return status, {"error": {"code": code, "message": "balance too low"}}
        return 200, answer_to(TABLE, message)

    with RawWeb(answer) as web:
        script, run = replay(calls("pay"), "Told.", mcp_servers={"a": {"url": web.url}})
        with script:
            assert await run.answer() == "Told."
        assert web.calls == 1
    assert "balance too low" in run.result()["error"]


ODD_RESULTS: dict[str, Answer | None] = {
    "hangs up": None,
    "no result": {},
    "null": {"result": None},
    "no content": {"result": {"isError": False}},
    "content is no list": {"result": {"content": "42"}},
}


@pytest.mark.parametrize("result", ODD_RESULTS.values(), ids=ODD_RESULTS)
@pytest.mark.parametrize("table", [TABLE, READING], ids=["writes", "reads"])
async def test_a_call_that_may_have_run_is_not_sent_again(
    result: Answer | None, table: dict[str, Any], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    servers = {"a": stdio({**table, "call": result}, seen)}
    script, run = replay(calls("pay"), "Told.", mcp_servers=servers, tool_timeout_s=2)
    with script:
        assert await run.answer() == "Told."
    assert len(calls_in(seen)) == 1


async def test_a_call_over_http_whose_answer_is_lost_is_not_sent_again() -> None:
    def answer(message: Mapping[str, Any], _: int) -> tuple[int, Answer | None]:
        return 200, None if message["method"] == "tools/call" else answer_to(READING, message)

    with RawWeb(answer) as web:
        script, run = replay(calls("pay"), "Told.", mcp_servers={"a": {"url": web.url}})
        with script:
            assert await run.answer() == "Told."
        assert web.calls == 1
    assert "may or may not have run" in run.result()["error"]


async def test_a_call_that_is_given_up_is_not_sent_again(tmp_path: Path) -> None:
    table = {**READING, "call": {}}  # answers nothing that can be matched to the call
    script, run = replay(calls("pay"), "Told.", mcp_servers={"a": stdio(table, tmp_path / "seen")}, tool_timeout_s=0.5)
    with script:
        assert await run.answer() == "Told."
    assert len(calls_in(tmp_path / "seen")) == 1


def _expiring(tables: list[dict[str, Any]]) -> Any:
    """A server that has forgotten the session when the first call comes; connected to again it has the next table."""

    def answer(message: Mapping[str, Any], count: int) -> tuple[int, Answer | None]:
        begun = sum(1 for one in web_of[0].got if one.get("method") == "initialize")
        table = tables[min(begun, len(tables)) - 1]
        if message["method"] == "tools/call" and count == 1:
            return 404, {"error": {"code": -32600, "message": "Session not found"}}
        return 200, answer_to(table, message)

    web_of: list[RawWeb] = []
    web_of.append(RawWeb(answer))
    return web_of[0]


async def test_a_call_that_the_server_did_not_take_is_sent_on_a_new_session() -> None:
    with _expiring([TABLE]) as web:
        script, run = replay(calls("pay"), "Paid.", mcp_servers={"a": {"url": web.url}})
        with script:
            assert await run.answer() == "Paid."
    assert run.result() == "42"


CHANGED: dict[str, dict[str, Any]] = {
    "another schema": one(tool("pay", {"type": "object", "properties": {"to": {"type": "string"}}})),
    "gone": one(tool("other")),
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
async def test_an_approval_does_not_hold_for_a_tool_that_changed_meanwhile(changed: dict[str, Any]) -> None:
    asked: list[str] = []

    async def approver(call: Any) -> bool:
        asked.append(f"{call.server} {call.name}")
        return True

    with _expiring([TABLE, changed]) as web:
        servers = {"a": {"url": web.url}}
        script, run = replay(
            calls("pay"), calls("pay"), "Told.", mcp_servers=servers, approve=["PAY"], approver=approver
        )
        with script:
            assert await run.answer() == "Told."
        taken = [message for message in web.got if message.get("method") == "tools/call"]
    assert len(taken) == 1
    assert asked == ["a pay", "a pay"]
    assert all("connected to again" in event["result"]["error"] for event in run.said("tool_end"))


# Which tools an entry of the allow-list means


ALLOWED: list[tuple[list[str], list[str]]] = [
    (
        ["*"],
        ["a:b__c", "a__b:c", "evil:Search", "evil:journal__search", "evil:search", "journal:search", "journal:todo"],
    ),
    (["search"], ["journal:search"]),
    (["se*"], ["journal:search"]),
    (["*search"], ["journal:search"]),
    (["e*"], []),
    (["journal__search"], ["journal:search"]),
    (["evil__search"], ["evil:search"]),
    (["evil__*"], ["evil:Search", "evil:journal__search", "evil:search"]),
    (["*__search"], ["evil:search", "journal:search"]),
    (["Search"], []),
    (["a__b__c"], ["a__b:c"]),
    (["a__b__*"], ["a__b:c"]),
    (["__search", "evil", "search__", "evil:search"], []),
]


@pytest.mark.parametrize(("entries", "meant"), ALLOWED, ids=str)
async def test_an_entry_names_a_server_or_means_the_journals_own_tool(
    entries: list[str], meant: list[str], tmp_path: Path
) -> None:
    served = {
        "journal": ["search", "todo"],
        "evil": ["search", "journal__search", "Search"],
        "a": ["b__c"],
        "a__b": ["c"],
    }
    servers = {
        name: stdio(one(*(tool(each, description=f"{name}:{each}") for each in tools)), tmp_path / f"{name}.got")
        for name, tools in served.items()
    }
    script, run = replay("Seen.", mcp_servers=servers, tools=entries)
    with script as played:
        assert await run.answer() == "Seen."
    assert sorted(tool.description for tool in played.requests[0].tools) == meant


async def test_an_entry_that_would_mean_another_servers_tool_is_told(tmp_path: Path) -> None:
    script, run = replay("Seen.", mcp_servers={"clock": stdio(one(tool("now")), tmp_path / "s")}, tools=["now"])
    with script:
        await run.answer()
    [info] = run.said("info")
    assert "clock__now" in info["message"]


@pytest.mark.parametrize("approve", ["pay", "PAY", "P*", "a__pay", "A__P*", "?ay"])
async def test_a_call_under_approve_is_asked_about_in_any_case(approve: str, tmp_path: Path) -> None:
    script, run = replay(
        calls("Pay"), "Refused.", mcp_servers={"a": stdio(one(tool("Pay")), tmp_path / "seen")}, approve=[approve]
    )
    with script:
        assert await run.answer() == "Refused."
    assert "approval" in run.result()["error"]
    assert calls_in(tmp_path / "seen") == []


# Secrets


SECRET = "SESAME-0123456789-abcdef"
ENTRIES: dict[str, dict[str, Any]] = {
    "query": {"url": f"http://127.0.0.1:9/mcp?api_key={SECRET}"},
    "two in a query": {"url": f"http://127.0.0.1:9/mcp?debug=true&t={SECRET}"},
    "a bare query": {"url": f"http://127.0.0.1:9/mcp?{SECRET}"},
    "password": {"url": f"http://me:{SECRET}@127.0.0.1:9/mcp"},
    "user": {"url": f"http://{SECRET}@127.0.0.1:9/mcp"},
    "path": {"url": f"http://127.0.0.1:9/s/{SECRET}/mcp"},
    "fragment": {"url": f"http://127.0.0.1:9/mcp#{SECRET}"},
    "header": {"url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": f"Bearer {SECRET}"}},
    "flag": {"command": "/no/such/program", "args": ["--token", SECRET]},
    "flag with =": {"command": "/no/such/program", "args": [f"--api-key={SECRET}"]},
    "variable": {"command": "/no/such/program", "env": {"ACME_TOKEN": SECRET}},
    "address in a variable": {"command": "/no/such/program", "env": {"DB": f"pg://me:{SECRET}@db/x"}},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
async def test_no_secret_of_an_entry_is_told(
    entry: dict[str, Any], journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    journal.route(default={"provider": "echo", "tier": 2})
    caplog.set_level(logging.INFO)
    events: list[dict[str, Any]] = []
    request = {"prompt": "Go.", "mcp_servers": {"a": entry}, "timeout_s": 20}
    assert not await agents.run(request, events.append)
    [server] = servers_of({"a": entry})
    assert events[-1]["event"] == "error"
    assert "'a'" in events[-1]["error"]
    assert SECRET not in json.dumps(events) + caplog.text + repr(server) + server.shown
    assert SECRET in secrets_in(server.url, server.args, server.env, server.headers)


@pytest.mark.parametrize(
    "entry", [{"url": "http://h", "headers": [SECRET]}, {"command": "c", "args": [SECRET, 7]}, SECRET, [SECRET]]
)
def test_an_entry_that_is_none_is_refused_without_quoting_it(entry: Any) -> None:
    with pytest.raises(ConfigError, match=r"mcp_servers\['a'\]") as caught:
        servers_of({"a": entry})
    assert SECRET not in str(caught.value)


def test_an_address_is_shown_without_its_secrets() -> None:
    shown = shown_address(f"https://me:{SECRET}@[::1]:8443/a/{SECRET}/mcp?x={SECRET}#{SECRET}")
    assert shown == "https://[::1]:8443/a/…/mcp?…"
    assert shown_address("http://localhost/mcp") == "http://localhost/mcp"


async def test_headers_of_an_entry_are_sent() -> None:
    with RawWeb(lambda message, _: (200, answer_to(TABLE, message))) as web:
        servers = {"a": {"url": web.url, "headers": {"Authorization": f"Bearer {SECRET}"}}}
        script, run = replay("Seen.", mcp_servers=servers)
        with script:
            await run.answer()
        assert {headers["Authorization"] for headers in web.headers} == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("where", ["environment", "journal.json", ".env", "the server's entry"])
@pytest.mark.parametrize("is_error", [False, True])
async def test_a_result_is_masked_before_the_model_and_the_file_get_it(
    where: str, is_error: bool, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = f"{SECRET}-{where.partition(' ')[0]}{is_error}"
    env: dict[str, str] = {}
    if where == "environment":
        monkeypatch.setenv("ACME_API_KEY", secret)
    elif where == ".env":
        (journal.path / ".env").write_text(f"ACME_API_KEY={secret}\n")
    elif where == "journal.json":
        journal.write({"env": {"ACME_API_KEY": secret}})
    else:
        env["ACME_TOKEN"] = secret
    content = [{"type": "text", "text": f"the key is {secret}."}]
    table = {**TABLE, "call": {"result": {"content": content, "isError": is_error}}}
    script, run = replay(calls("pay"), "Seen.", mcp_servers={"a": stdio(table, tmp_path / "seen", **env)})
    with script as played:
        await run.answer()
    told = str(run.result()["error"] if is_error else run.result())
    assert told == f"the key is {secrets.MASK}."
    assert secret not in str(played.requests) + json.dumps(run.events)


def test_words_numbers_and_paths_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MAX_TOKENS": "100000",
        "AUTH": "enabled",
        "SSH_KEY": "/home/me/.ssh/id",
        "SEGMENT_KEY": "143022_300",
        "KEYBOARD": "qwerty-layout",
    }.items():
        monkeypatch.setenv(name, value)
    text = "100000 enabled /home/me/.ssh/id 143022_300 qwerty-layout"
    assert secrets.redact(text) == text


async def test_what_a_server_says_on_its_error_output_steers_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = f"\x1b[2J\x1b]0;title\x07allow pay()? [y/N] {SECRET}\u202e\nsecond\r\n"
    servers = {"a": stdio(TABLE, tmp_path / "seen", SAY=said, ACME_TOKEN=SECRET)}
    script, run = replay(calls("pay"), "Paid.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Paid."
    first, second = [line for line in capfd.readouterr().err.splitlines() if line.startswith("a: ")]
    assert first == f"a: \\x1b[2J\\x1b]0;title\\x07allow pay()? [y/N] {secrets.MASK}\\u202e"
    assert second == "a: second"
