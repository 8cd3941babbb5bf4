"""Shows that the loopback server speaks the wire forms that the vendors' own SDKs read."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.loopback.outcomes import OUTCOMES, REFUSAL, SERVED, TEXT, outcome
from tests.loopback.scenarios import FIXTURES, PROVIDERS, names
from tests.loopback.sdk_async_calls import ask_async
from tests.loopback.sdk_calls import SyncCalls, joined
from tests.loopback.sdk_faults import BROKEN, BROKEN_STREAMS, ERRORS, Fault
from tests.loopback.sdk_replies import read_chunks, read_compatible, read_google
from tests.loopback.server import (
    Answer,
    Delay,
    Drip,
    Hang,
    LoopbackServer,
    Raw,
)

PATHS = {
    "openai": "/v1/responses",
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/text:generateContent",
    "compatible": "/v1/chat/completions",
}
ROOT = Path(__file__).resolve().parents[1]

CASES = [(name, scenario) for name in PROVIDERS for scenario in OUTCOMES]
ERROR_CASES = [(name, scenario) for name in PROVIDERS for scenario in ERRORS[name]]
every_case = pytest.mark.parametrize(("provider", "scenario"), CASES)
every_error = pytest.mark.parametrize(("provider", "scenario"), ERROR_CASES)
every_provider = pytest.mark.parametrize("provider", PROVIDERS)
every_broken_reply = pytest.mark.parametrize("fault", BROKEN, ids=str)
every_broken_stream = pytest.mark.parametrize("fault", BROKEN_STREAMS, ids=str)
plain_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
both_transports = pytest.mark.parametrize("transport", ["httpx2", "aiohttp"])


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer) -> LoopbackServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def calls(running: LoopbackServer) -> Iterator[SyncCalls]:
    with SyncCalls(running.url) as clients:
        yield clients


def post(server: LoopbackServer, path: str, body: object) -> tuple[int, bytes]:
    """Send one request on its own connection; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


async def expect(fault: Fault, server: LoopbackServer, *, stream: bool, transport: str) -> None:
    """Ask once over `transport` and expect the fault, without a second request."""
    server.script(fault.provider, [fault.step])
    with pytest.raises(fault.httpx2 if transport == "httpx2" else fault.aiohttp):
        await ask_async(
            server.url,
            fault.provider,
            ["text"],
            stream=stream,
            transport=transport,
            timeout_s=fault.timeout_s,
        )
    assert len(server.requests) == 1


def events(content: bytes) -> Sequence[str]:
    """Return the event names of a stream."""
    lines = content.decode().splitlines()
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


# What the SDKs read


@every_case
@plain_and_streamed
def test_sync_sdk_reads_every_scenario(
    server: LoopbackServer, calls: SyncCalls, provider: str, scenario: str, stream: bool
) -> None:
    assert calls.outcome(provider, scenario, stream=stream) == outcome(provider, scenario)


@every_provider
@plain_and_streamed
@both_transports
async def test_async_sdk_reads_what_the_sync_one_reads(
    server: LoopbackServer, provider: str, stream: bool, transport: str
) -> None:
    scenarios = list(OUTCOMES)
    seen = await ask_async(server.url, provider, scenarios, stream=stream, transport=transport)
    assert seen == [outcome(provider, scenario) for scenario in scenarios]
    assert server.connections == 1


@pytest.mark.parametrize("scenario", ["stream", "stream_thinking", "stream_tools"])
@every_provider
def test_written_streams_agree_with_the_plain_replies(
    server: LoopbackServer, calls: SyncCalls, provider: str, scenario: str
) -> None:
    twin = {"stream": "text"}.get(scenario, scenario.removeprefix("stream_"))
    assert calls.outcome(provider, scenario, stream=True) == outcome(provider, twin)


@every_error
@plain_and_streamed
def test_error_raises_the_sdks_own_class(
    server: LoopbackServer, calls: SyncCalls, provider: str, scenario: str, stream: bool
) -> None:
    with pytest.raises(ERRORS[provider][scenario]) as caught:
        calls.outcome(provider, scenario, stream=stream)
    assert type(caught.value) is ERRORS[provider][scenario]


@every_provider
@both_transports
async def test_async_error_raises_the_same_class(server: LoopbackServer, provider: str, transport: str) -> None:
    for scenario, expected in ERRORS[provider].items():
        with pytest.raises(expected):
            await ask_async(server.url, provider, [scenario], stream=False, transport=transport)


@every_broken_reply
def test_sync_sdk_reports_a_broken_reply(server: LoopbackServer, fault: Fault) -> None:
    server.script(fault.provider, [fault.step])
    with SyncCalls(server.url, timeout_s=fault.timeout_s) as calls, pytest.raises(fault.httpx2):
        calls.outcome(fault.provider, "text", stream=False)
    assert len(server.requests) == 1


@every_broken_reply
@both_transports
async def test_async_sdk_reports_a_broken_reply(server: LoopbackServer, fault: Fault, transport: str) -> None:
    await expect(fault, server, stream=False, transport=transport)


@every_broken_stream
def test_sync_sdk_reports_a_broken_stream(server: LoopbackServer, fault: Fault) -> None:
    server.script(fault.provider, [fault.step])
    with SyncCalls(server.url, timeout_s=fault.timeout_s) as calls, pytest.raises(fault.httpx2):
        calls.outcome(fault.provider, "text", stream=True)


@every_broken_stream
@both_transports
async def test_async_sdk_reports_a_broken_stream(server: LoopbackServer, fault: Fault, transport: str) -> None:
    await expect(fault, server, stream=True, transport=transport)


# What the SDKs let pass, and a caller has to notice


def test_an_error_inside_200_is_a_hollow_reply(server: LoopbackServer, calls: SyncCalls) -> None:
    assert calls.openai("error_in_200").output is None
    assert calls.openai("failed").status == "failed"
    assert calls.compatible("error_in_200").choices is None
    assert calls.anthropic("error_in_200").content is None
    assert calls.google("error_in_200").candidates is None
    assert calls.google("empty_body").candidates is None


def test_openai_streams_end_in_silence_or_in_an_event(server: LoopbackServer, calls: SyncCalls) -> None:
    last = {name: calls.openai_stream(name)[-1].type for name in ("stream_error", "stream_failed")}
    assert last == {"stream_error": "error", "stream_failed": "response.failed"}
    assert calls.openai_stream("error_in_200") == []
    assert calls.openai_stream("stream_empty_body") == []
    assert joined(calls.openai_stream("stream_short")) == "The tide turns "
    assert calls.openai_stream("stream_incomplete")[-1].type == "response.incomplete"


def test_a_refusal_is_not_text(server: LoopbackServer, calls: SyncCalls) -> None:
    message = calls.compatible("blocked_refusal").choices[0].message
    assert (message.content, message.refusal) == (None, REFUSAL)
    assert calls.openai("blocked_refusal").output_text == ""
    details = calls.anthropic("blocked").stop_details
    assert details is not None
    assert details.category == "cyber"
    assert read_google([calls.google("blocked_prompt")]).finish == "blocked"


def test_a_gateway_may_name_reasoning_otherwise_or_leave_counts_out(server: LoopbackServer, calls: SyncCalls) -> None:
    assert read_compatible(calls.compatible("thinking_content")) == OUTCOMES["thinking"]
    assert read_chunks(calls.compatible_stream("thinking_content")) == OUTCOMES["thinking"]
    assert calls.compatible("no_usage").usage is None


def test_the_served_model_is_named(server: LoopbackServer, calls: SyncCalls) -> None:
    served = {
        "openai": calls.openai("gpt-x-latest").model,
        "anthropic": calls.anthropic("claude-x-latest").model,
        "google": calls.google("gemini-x-latest").model_version,
        "compatible": calls.compatible("x-latest").model,
    }
    assert served == SERVED


def test_timeouts_of_sync_sdks_count_from_piece_to_piece(server: LoopbackServer) -> None:
    timeout_s = 0.3
    for provider in ("openai", "anthropic", "google"):
        server.script(provider, [Drip(timeout_s / 5, "text")])
        with SyncCalls(server.url, timeout_s=timeout_s) as calls:
            started_s = time.monotonic()
            assert calls.outcome(provider, "text", stream=False).text == TEXT
            assert time.monotonic() - started_s > timeout_s


# The fixtures and the server itself


@every_provider
def test_every_fixture_has_one_kind_of_content(provider: str) -> None:
    shared = set.intersection(*(set(names(each)) for each in PROVIDERS))
    assert shared >= {*OUTCOMES, "stream", "stream_cut", "stream_error", "error_in_200", "models"}
    for path in (FIXTURES / provider).glob("*.json"):
        fixture = json.loads(path.read_text(encoding="utf-8"))
        assert len({"body", "sse", "raw"} & set(fixture)) == 1, path.name
        assert isinstance(fixture["status"], int), path.name
        assert "content-type" in fixture["headers"], path.name


def test_anthropic_and_openai_name_their_events(server: LoopbackServer) -> None:
    _, content = post(server, PATHS["anthropic"], {"model": "stream", "stream": True})
    named = [name for name in events(content) if name != "content_block_delta"]
    assert named[:3] == ["message_start", "content_block_start", "ping"]
    assert named[3:] == ["content_block_stop", "message_delta", "message_stop"]
    _, content = post(server, PATHS["openai"], {"model": "stream", "stream": True})
    assert events(content)[:2] == ["response.created", "response.in_progress"]
    assert events(content)[-1] == "response.completed"


def test_chat_counts_come_only_when_asked_for(server: LoopbackServer) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        request = {"model": "text", "stream": True, **options}
        _, content = post(server, PATHS["compatible"], request)
        assert (b"prompt_tokens" in content) is bool(options)
        assert content.endswith(b"data: [DONE]\n\n")


def test_a_script_goes_before_the_model_name(server: LoopbackServer) -> None:
    server.script("openai", ["error_500", Answer({"mine": 1}, status=201), "text"])
    path, body = PATHS["openai"], {"model": "gpt-scenario-error_404"}
    assert [post(server, path, body)[0] for _ in range(2)] == [500, 201]
    assert server.unused() == {"openai": ["text"]}
    assert [post(server, path, body)[0] for _ in range(2)] == [200, 404]


def test_an_unknown_scenario_is_refused_when_scripted(server: LoopbackServer) -> None:
    with pytest.raises(ValueError, match=r"found 'nothing', expected one of .*truncated"):
        server.script("google", [Delay(1, "nothing")])
    with pytest.raises(ValueError, match="found 'acme'"):
        server.script("acme", ["text"])


def test_requests_are_recorded_and_connections_counted(server: LoopbackServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    for number in range(3):
        body = iter([b'{"model": "te', b'xt", "n": %d}' % number])
        connection.request("POST", PATHS["openai"], body, {"X-Key": "k"}, encode_chunked=True)
        assert connection.getresponse().read()
    connection.close()
    assert server.connections == 1
    assert [request.body["n"] for request in server.requests] == [0, 1, 2]
    first = server.requests[0]
    assert (first.method, first.path, first.headers["x-key"]) == ("POST", "/v1/responses", "k")
    assert first.arrived_s <= server.requests[1].arrived_s
    assert first.connection == server.requests[2].connection


def test_models_are_listed_in_each_wire_form(server: LoopbackServer, calls: SyncCalls) -> None:
    assert SERVED["openai"] in [model.id for model in calls.openai_client.models.list()]
    assert SERVED["anthropic"] in [model.id for model in calls.anthropic_client.models.list()]
    assert SERVED["google"] in str([model.name for model in calls.google_client.models.list()])


def test_requests_sent_at_once_are_answered_in_order(server: LoopbackServer) -> None:
    server.script("openai", [Delay(0.05, "error_404"), "error_401"])
    request = b"POST /v1/responses HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(request * 2)
        answer = b""
        while b"invalid_api_key" not in answer:
            answer += client.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"100", b"404", b"401"]


def test_a_taken_port_is_said_at_once(server: LoopbackServer) -> None:
    with pytest.raises(OSError, match="in use"):
        LoopbackServer(port=server.port).start()


def test_closed_connections_are_noticed(server: LoopbackServer) -> None:
    server.script("openai", [Hang(), Raw(b"HTTP/1.1 204 No Content\r\n\r\n")])
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/responses HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        assert server.wait_until(lambda it: len(it.requests) == 1)
        number = server.requests[0].connection
        assert server.is_open(number)
    assert server.wait_until(lambda it: not it.is_open(number))
    assert post(server, PATHS["openai"], {})[0] == 204


def test_a_server_process_ends_with_its_stdin() -> None:
    command = [sys.executable, "-m", "tests.loopback.server", "--port", "0", "--latency-ms", "50"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
        started_s = time.monotonic()
        connection.request("POST", PATHS["google"], "{}")
        assert connection.getresponse().status == 200
        assert time.monotonic() - started_s >= 0.05
        connection.close()
        process.stdin.close()
        counts = json.loads(process.stdout.readline())
        assert process.wait(180) == 0
    assert (counts["requests"], counts["connections"]) == (1, 1)
