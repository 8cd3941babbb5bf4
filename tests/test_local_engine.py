"""The embedded engine, with the real one and its real weights; knows nothing of the provider."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muse.providers._local import process, server
from muse.providers._local.engine import (
    Engine,
    EngineDied,
    EngineMissing,
    EngineRefused,
)
from tests.embedded import WEIGHTS, needs_model

PATIENCE_S = 200.0
ENDLESS = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True}
"""Takes longer than any timeout here."""
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Give the one engine of this file, and stop it."""
    assert WEIGHTS is not None
    shared = Engine.shared(WEIGHTS)
    yield shared
    shared.stop()


def chat(text: str, **more: object) -> dict[str, Any]:
    """Give the body of a short, repeatable chat request."""
    turn = {"role": "user", "content": text}
    return {"messages": [turn], "max_tokens": 24, "temperature": 0, **more}


def text_of(answer: dict[str, Any]) -> str:
    """Read the text of a chat answer."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


@needs_model
def test_an_answer_has_text_usage_and_timings(engine: Engine) -> None:
    answer = engine.request("chat", chat("Say hello."), timeout_s=PATIENCE_S)
    assert text_of(answer)
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["prompt_tokens"] > 0
    assert answer["usage"]["completion_tokens"] <= 24
    assert answer["timings"]["predicted_n"] == answer["usage"]["completion_tokens"]


@needs_model
def test_the_model_is_described(engine: Engine) -> None:
    ready = engine.ready(timeout_s=PATIENCE_S)
    assert ready["model"].startswith("SmolLM2")
    assert ready["n_ctx"] == 4096
    assert ready["supports_tools"] is False
    assert ready["load_s"] > 0
    assert ready == asyncio.run(engine.aready(timeout_s=PATIENCE_S))


@needs_model
def test_a_completion_goes_on_from_its_prompt(engine: Engine) -> None:
    body = {"prompt": "one two three four five", "max_tokens": 4, "temperature": 0}
    answer = engine.request("complete", body, timeout_s=PATIENCE_S)
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]


@needs_model
def test_the_chunks_of_a_stream_join_to_the_whole_answer(engine: Engine) -> None:
    body = chat("Tell me about foxes.")
    chunks = list(engine.stream("chat", body, timeout_s=PATIENCE_S))
    deltas = [choice["delta"].get("content") or "" for c in chunks for choice in c["choices"]]
    assert len([delta for delta in deltas if delta]) > 1
    assert "".join(deltas) == text_of(engine.request("chat", body, timeout_s=PATIENCE_S))
    assert chunks[-1]["usage"]["completion_tokens"] <= 24


@needs_model
def test_a_schema_gives_json_of_that_schema(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["meeting", "note"]}, "urgent": {"type": "boolean"}},
        "required": ["kind", "urgent"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = chat("The team met at nine.", response_format=form, max_tokens=100)
    found = json.loads(text_of(engine.request("chat", body, timeout_s=PATIENCE_S)))
    assert set(found) == {"kind", "urgent"}
    assert found["kind"] in ("meeting", "note")
    assert isinstance(found["urgent"], bool)


@needs_model
def test_a_prompt_over_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineRefused) as caught:
        engine.request("chat", chat("hello " * 5000), timeout_s=PATIENCE_S)
    assert (caught.value.status, caught.value.code) == (400, "exceed_context_size_error")


@needs_model
@pytest.mark.parametrize(
    "body",
    [
        chat("Hi", grammar="root ::= ("),
        chat("half a pair: \ud800"),
        {"messages": "Hi"},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
    ],
)
def test_a_body_that_makes_no_sense_is_refused(engine: Engine, body: dict[str, Any]) -> None:
    with pytest.raises(EngineRefused) as caught:
        engine.request("chat", body, timeout_s=PATIENCE_S)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request_error")
    assert caught.value.message


@needs_model
def test_a_timeout_ends_the_wait_and_the_work(engine: Engine) -> None:
    engine.ready(timeout_s=PATIENCE_S)
    with pytest.raises(TimeoutError, match="complete"):
        engine.request("complete", ENDLESS, timeout_s=0.2)
    assert text_of(engine.request("chat", chat("Hi"), timeout_s=PATIENCE_S))


@needs_model
def test_a_timeout_also_ends_the_reading_of_a_long_prompt(engine: Engine) -> None:
    engine.ready(timeout_s=PATIENCE_S)
    long = {**ENDLESS, "prompt": "".join(f"{n} foxes jumped. " for n in range(500))}
    with pytest.raises(TimeoutError):
        asyncio.run(engine.arequest("complete", long, timeout_s=0.2))
    assert text_of(engine.request("chat", chat("Hi"), timeout_s=PATIENCE_S))


@needs_model
def test_closing_a_stream_cancels_the_work(engine: Engine) -> None:
    stream = engine.stream("complete", ENDLESS, timeout_s=PATIENCE_S)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert text_of(engine.request("chat", chat("Hi"), timeout_s=PATIENCE_S))


@needs_model
def test_cancelling_a_coroutine_cancels_the_work(engine: Engine) -> None:
    async def main() -> dict[str, Any]:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in engine.astream("complete", ENDLESS, timeout_s=PATIENCE_S):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.arequest("chat", chat("Hi"), timeout_s=PATIENCE_S)

    assert text_of(asyncio.run(main()))


@needs_model
def test_alternating_event_loops_share_one_process(engine: Engine) -> None:
    body = chat("Name a colour.", max_tokens=8)
    pid = engine.ready(timeout_s=PATIENCE_S)["pid"]
    answers = {text_of(asyncio.run(engine.arequest("chat", body, timeout_s=PATIENCE_S))) for _ in range(4)}
    assert len(answers) == 1
    assert engine.ready(timeout_s=PATIENCE_S)["pid"] == pid


@needs_model
def test_sixteen_requests_at_once_from_threads_and_coroutines_are_all_right(
    engine: Engine,
) -> None:
    bodies = [chat(f"Count from {n}.", max_tokens=8) for n in range(8)]
    alone = [text_of(engine.request("chat", body, timeout_s=PATIENCE_S)) for body in bodies]

    async def gather() -> list[dict[str, Any]]:
        asks = (engine.arequest("chat", body, timeout_s=PATIENCE_S) for body in bodies)
        return await asyncio.gather(*asks)

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(engine.request, "chat", body, timeout_s=PATIENCE_S) for body in bodies]
        together = [text_of(answer) for answer in asyncio.run(gather())]
        threaded = [text_of(future.result()) for future in waiting]
    assert together == threaded == alone


@needs_model
@needs_fork
def test_a_killed_process_is_reported_and_replaced_once(engine: Engine) -> None:
    pid = engine.ready(timeout_s=PATIENCE_S)["pid"]
    stream = iter(engine.stream("complete", ENDLESS, timeout_s=PATIENCE_S))
    next(stream)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="the next request starts a new one"):
        list(stream)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: engine.ready(timeout_s=PATIENCE_S)["pid"], range(4))
        pids = set(found)
    assert len(pids) == 1
    assert pid not in pids


@needs_model
def test_stopping_ends_who_waits_and_the_next_request_starts_again(engine: Engine) -> None:
    stream = iter(engine.stream("complete", ENDLESS, timeout_s=PATIENCE_S))
    next(stream)
    engine.stop()
    with pytest.raises(EngineDied):
        list(stream)
    assert text_of(engine.request("chat", chat("Hi"), timeout_s=PATIENCE_S))


@needs_model
@pytest.mark.parametrize("content", [b"GGUF" + bytes(400), b"not a model", None])
def test_a_file_that_is_no_model_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "odd.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineRefused, match=r"cannot load .*odd\.gguf: .*name another") as caught:
        Engine.shared(path).request("chat", chat("Hi"), timeout_s=PATIENCE_S)
    assert (caught.value.status, caught.value.code) == (422, "model_not_loaded")


def test_a_missing_engine_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PACKAGE", "no_such_engine")
    with pytest.raises(EngineMissing, match="'no_such_engine' is not installed"):
        Engine.shared(Path("any.gguf")).request("chat", chat("Hi"))


def test_both_sides_agree_on_the_exit_codes() -> None:
    assert process.EXIT_NOT_LOADED == server.EXIT_NOT_LOADED
    assert process.EXIT_NO_PACKAGE == server.EXIT_NO_PACKAGE


def test_streamed_tool_calls_are_joined_by_their_index() -> None:
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = [
        {"role": "assistant", "content": None, "tool_calls": [first]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    whole = server.FrameBuffer()
    for piece in pieces:
        choice = {"index": 0, "delta": piece, "finish_reason": None}
        whole.add({"object": "chat.completion.chunk", "choices": [choice]})
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert whole.whole()["choices"] == [{"index": 0, "finish_reason": None, "message": message}]
