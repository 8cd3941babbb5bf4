"""Shows the tool server as its clients see it: in memory, as a child process, over HTTP; and who is turned away."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mcp import Client, StdioServerParameters

from muse import mcp as server_module
from muse.agent_loop.tool_registry import LocalTool, ToolModule, find_tool_modules, tool_modules
from muse.errors import ConfigError, ToolError
from muse.mcp import ServerAddress, build_server, parse_address
from tests.journal_folder import ROOT, JournalFolder, environment

QUESTION = {"query": "thermal camera"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture(name="example")
def _example(journal: JournalFolder) -> Path:
    """`JOURNAL_PATH` names a copy of the example journal."""
    shutil.copytree(ROOT / "fixtures" / "journal", journal.path, dirs_exist_ok=True)
    return journal.path


def _environment() -> dict[str, str]:
    """What a server in a process of its own gets: the journal of the test, and none of the caller's settings for it."""
    return {name: value for name, value in environment().items() if not name.startswith("MUSE_MCP_")}


@contextmanager
def _listening() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over HTTP on a free port: its address and its process."""
    command = [sys.executable, "-m", "muse.mcp", "--http", "--port", "0"]
    child = subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    with child:
        try:
            line = child.stderr.readline()
            assert "listening on http://" in line, line + child.stderr.read()
            yield line.split()[-1], child
        finally:
            child.terminate()


def _post(url: str, headers: Mapping[str, str], body: Any = INITIALIZE) -> int:
    """The status of a request with these headers."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", place.port or 80, timeout=180)
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    connection.putrequest("POST", place.path, skip_host="Host" in sent)
    content = json.dumps(body).encode()
    for name, value in {**sent, "Content-Length": str(len(content))}.items():
        connection.putheader(name, value)
    connection.endheaders(content)
    status = connection.getresponse().status
    connection.close()
    return status


# --- in memory


async def test_the_server_has_the_tools_of_every_pack() -> None:
    named = tool_modules()
    assert set(named["journal"]) == {"search_journal", "list_days", "read_entry", "get_events", "search_insights"}
    assert set(named["todo"]) == {"list_todos", "add_todo", "complete_todo"}
    async with Client(build_server()) as client:
        listed = (await client.list_tools()).tools
    assert [tool.name for tool in listed] == [name for names in named.values() for name in names]


async def test_each_tool_is_typed_documented_and_says_what_it_changes() -> None:
    async with Client(build_server()) as client:
        listed = (await client.list_tools()).tools
    reads = {tool.name: tool.read_only for pack in find_tool_modules() for tool in pack.tools}
    for tool in listed:
        assert tool.description
        assert "\n    " not in tool.description
        assert tool.output_schema is not None
        assert tool.input_schema["additionalProperties"] is False
        assert all(field.get("description") for field in tool.input_schema["properties"].values()), tool.name
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is reads[tool.name]
        assert tool.annotations.destructive_hint is False
        assert tool.annotations.open_world_hint is False


async def test_a_result_is_json_as_text_and_as_structure(example: Path) -> None:
    async with Client(build_server()) as client:
        for name, arguments in (
            ("search_journal", QUESTION),
            ("list_days", {}),
            ("read_entry", {"entry": "20261103/notes/1715_evening.md"}),
            ("get_events", {"day_from": "20261103"}),
            ("search_insights", {"query": "decisions"}),
            ("list_todos", {"state": "all"}),
            ("add_todo", {"text": "Water the fern", "tags": ["home"]}),
            ("complete_todo", {"todo_id": "T-124"}),
        ):
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result.content
            assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_journal", {}, "search_journal: query: found nothing, expected: field required"),
        ("search_journal", {"querry": "a"}, "search_journal: unknown argument 'querry'; did you mean query?"),
        ("list_days", {"page": 2}, "list_days: unknown argument 'page'; it takes limit, offset"),
        ("list_days", {"limit": 0}, "limit: found 0, expected: should be greater than or equal to 1"),
        ("list_days", {"limit": "many"}, "limit: found 'many', expected: should be a valid integer"),
        ("search_journal", {"query": "a", "kind": "mail"}, "should be 'transcript', 'note', 'insight', 'event',"),
        ("search_journal", {"query": "a", "day_from": "Tuesday"}, "expected a day as YYYYMMDD, such as 20261103"),
        ("read_entry", {"entry": "x"}, "read_entry: entry: found 'x', which the journal does not have"),
        ("complete_todo", {"todo_id": "T-999"}, "complete_todo: todo_id: found 'T-999'"),
    ],
)
async def test_a_wrong_call_is_told_what_would_be_right(
    example: Path, name: str, arguments: dict[str, Any], said: str
) -> None:
    async with Client(build_server()) as client:
        result = await client.call_tool(name, arguments)
    assert result.is_error
    assert said in result.content[0].text  # type: ignore[union-attr]
    assert "pydantic" not in result.content[0].text  # type: ignore[union-attr]


def _crash() -> str:
    raise RuntimeError("a secret path")


def _refuse() -> str:
    raise ToolError("size: found 3, expected 1 or 2")


async def test_a_crash_keeps_its_words_and_a_refusal_tells_them(caplog: pytest.LogCaptureFixture) -> None:
    pack = ToolModule("test", (LocalTool(_crash, "Crash"), LocalTool(_refuse, "Refuse")))
    async with Client(build_server([pack])) as client:
        crashed = await client.call_tool("_crash", {})
        refused = await client.call_tool("_refuse", {})
    assert crashed.is_error
    assert "secret" not in str(crashed.content)
    assert "a secret path" in caplog.text
    assert refused.content[0].text == "_refuse: size: found 3, expected 1 or 2"  # type: ignore[union-attr]


async def test_fifty_calls_at_once_all_get_their_own_answer(example: Path) -> None:
    async with Client(build_server()) as client:
        calls = [
            client.call_tool("search_journal", {"query": "release", "offset": n % 10, "limit": 1}) for n in range(50)
        ]
        results = await asyncio.gather(*calls)
    entries = [result.structured_content["results"][0] for result in results if result.structured_content]
    assert len(entries) == 50
    assert all(entries[number] == entries[number % 10] for number in range(50))
    assert len({json.dumps(entry) for entry in entries}) == 10


def test_making_a_server_leaves_logging_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    build_server()
    assert (root.handlers[:], root.level) == before


# --- as a child process


async def test_it_speaks_over_standard_input_and_output(example: Path) -> None:
    server = StdioServerParameters(command=sys.executable, args=["-m", "muse.mcp"], env=_environment())
    async with Client(server) as client:
        result = await client.call_tool("search_journal", QUESTION)
        assert result.structured_content
        assert result.structured_content["total"] == 3
        assert (await client.call_tool("list_days", {"limit": 99})).is_error


@contextmanager
def _stdio() -> Iterator[subprocess.Popen[str]]:
    """A server over standard input and output, after the first handshake."""
    child = subprocess.Popen(
        [sys.executable, "-m", "muse.mcp", "-v"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert _ask(child, INITIALIZE)["id"] == 1
            yield child
        finally:
            child.terminate()


def _ask(child: subprocess.Popen[str], message: Any) -> Any:
    """The next line of standard output, as JSON."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{json.dumps(message)}\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())


def test_nothing_but_the_protocol_goes_to_standard_output(example: Path) -> None:
    with _stdio() as child:
        call = {"name": "search_journal", "arguments": QUESTION}
        answer = _ask(child, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
        assert answer["id"] == 2
        assert "Thermal" in json.dumps(answer)
        wrong = {"name": "search_journal", "arguments": {}}
        assert _ask(child, {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": wrong})["id"] == 3
        out, err = child.communicate(timeout=180)
    assert out == ""
    assert child.returncode == 0
    assert "search_journal" in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX's")
def test_an_interrupt_ends_a_server_that_waits_for_input(example: Path) -> None:
    with _stdio() as child:
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=180) == -signal.SIGINT


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX's")
def test_an_interrupt_ends_the_listening_server_at_once(example: Path) -> None:
    with _listening() as (_, child):
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=180) in {0, 130}
        assert child.stderr is not None
        assert "Traceback" not in child.stderr.read()


# --- over HTTP


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_it_speaks_over_streamable_http(example: Path, mode: str) -> None:
    with _listening() as (url, _):
        async with Client(url, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 8
            result = await client.call_tool("search_journal", QUESTION)
    assert result.structured_content
    assert result.structured_content["total"] == 3


def test_requests_of_web_pages_elsewhere_are_refused(example: Path) -> None:
    with _listening() as (url, _):
        port = urlsplit(url).port
        assert _post(url, {}) == 200
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert _post(url, {"Host": host, "Origin": f"http://{host}"}) == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1:1", f"localhost.evil.example:{port}", ""):
            assert _post(url, {"Host": host}) in {400, 421}, host
        for origin in ("https://evil.example", f"http://evil.example:{port}", "null", "http://localhost:1"):
            assert _post(url, {"Origin": origin}) == 403, origin
        modern = {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        assert _post(url, {**modern, "Origin": "https://evil.example"}, listing) == 403
        assert _post(url, {**modern, "Host": "evil.example"}, listing) == 421


def test_a_port_that_is_taken_is_said_without_a_traceback(example: Path) -> None:
    with _listening() as (url, _):
        taken = str(urlsplit(url).port)
        done = _run("--http", MUSE_MCP_PORT=taken)
    assert done.returncode == 2
    assert f"127.0.0.1 port {taken}, which cannot be had" in done.stderr
    assert "Traceback" not in done.stderr


def _run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muse.mcp", *arguments],
        env={**_environment(), **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_variables_and_options_make_the_place() -> None:
    variables = {"MUSE_MCP_HOST": "::1", "MUSE_MCP_PORT": "0", "MUSE_MCP_PATH": "/tools"}
    assert parse_address(None, None, None, {}) == ServerAddress(
        server_module.HOST, server_module.PORT, server_module.PATH
    )
    assert parse_address(None, None, None, variables) == ServerAddress("::1", 0, "/tools")
    assert parse_address("localhost", "8000", "/", variables) == ServerAddress("127.0.0.1", 8000, "/")
    assert parse_address("[::1]", None, None, {}).host == "::1"


@pytest.mark.parametrize(
    ("host", "port", "path", "said"),
    [
        ("0.0.0.0", None, None, "--host: found '0.0.0.0', expected 127.0.0.1, ::1 or localhost"),
        ("192.168.1.5", None, None, "the journal is private"),
        ("example.org", None, None, "the journal is private"),
        ("::", None, None, "the journal is private"),
        (None, "http", None, "--port: found 'http', expected a number from 0 to 65535"),
        (None, "65536", None, "--port: found '65536'"),
        (None, None, "mcp", "--path: found 'mcp', expected a path that begins with '/'"),
        (None, None, "/a b", "--path: found '/a b'"),
    ],
)
def test_a_place_that_others_reach_or_that_is_none_is_refused(
    host: str | None, port: str | None, path: str | None, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(host, port, path, {})
    assert said in str(caught.value)


def test_a_refused_place_of_the_environment_is_named_and_nothing_listens() -> None:
    done = _run("--http", MUSE_MCP_HOST="0.0.0.0")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "muse-mcp-tools: $MUSE_MCP_HOST: found '0.0.0.0', expected 127.0.0.1, ::1 or localhost"
    )


# --- the command


def test_the_tools_are_printed_with_their_packs() -> None:
    done = _run("--list")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["journal", "search_journal", "reads"] in rows
    assert ["todo", "add_todo", "changes"] in rows
    assert len(rows) == 8


def test_an_option_of_http_without_it_is_a_mistake() -> None:
    done = _run("--port", "0")
    assert done.returncode == 2
    assert "belong to --http" in done.stderr


def test_the_installed_wheel_has_the_server_and_its_tools(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "muse.mcp", "--list"],
        env={**_environment(), "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8
    assert (
        "muse-mcp-tools = muse.mcp:main" in next((tmp_path / "site").glob("*.dist-info/entry_points.txt")).read_text()
    )
