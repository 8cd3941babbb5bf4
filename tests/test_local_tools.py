"""Tool use with the real engine and the journal's own tools; of what is said only form and source are looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muse.mcp import build_server
from muse.policies.deadline import Deadline
from muse.providers import local
from muse.providers._local.engine import Engine
from muse.types.messages import Request, User
from tests.embedded import WEIGHTS, needs_model
from tests.gguf_file import with_template
from tests.planned import FERRY, SEARCH

pytestmark = pytest.mark.usefixtures("engine_of_this_file")

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MODEL = "smollm2-135m-instruct.q4_1"
QUESTION = "What did I decide about the release on Tuesday?"
ROOM_FOR_TOOLS = (
    "{% if tools %}<|im_start|>system\n<tools>\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools>"
    "<tool_call>{name, arguments}</tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}"
    "{{ message.content or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def journal_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example journal, without its routes."""
    copy = shutil.copytree(FIXTURES / "journal", tmp_path / "journal")
    (copy / "config" / "journal.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("JOURNAL_PATH", str(copy))
    monkeypatch.delenv(local.MODEL_ENV, raising=False)
    return copy


async def run(question: str) -> tuple[str, list[dict[str, Any]]]:
    """An agent's answer and its events."""
    events: list[dict[str, Any]] = []
    config = {"prompt": question, "model": MODEL, "mcp_servers": {"journal": build_server()}, "max_turns": 6}
    return await local.run_agent(config, events.append), events


def calls_of(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a run."""
    return [(event["tool"], event["args"]) for event in events if event["event"] == "tool_start"]


@needs_model
async def test_an_agent_answers_from_the_journal_with_valid_calls_and_its_source(journal_copy: Path) -> None:
    answer, events = await run(QUESTION)
    tools = {tool.name: tool for tool in await build_server().list_tools()}
    calls = calls_of(events)
    assert calls[-1][0] in {"search_journal", "search_insights", "get_events"}
    for name, args in calls:
        assert tools[name].annotations is not None
        assert tools[name].annotations.read_only_hint
        Draft202012Validator(tools[name].input_schema).validate(args)
    source = next(line for line in answer.splitlines() if line.startswith("Source: 20261103/"))
    path = source.removeprefix("Source: ").partition(",")[0].partition("#")[0]
    assert (journal_copy / path).is_file()
    assert events[-1]["event"] == "finish"
    assert events[-1]["usage"]["total_tokens"] > 0


@needs_model
@pytest.mark.usefixtures("journal_copy")
@pytest.mark.parametrize("question", [QUESTION, "Show me the to-dos that are still open.", "Add a to-do: buy bread"])
async def test_two_runs_are_equal(question: str) -> None:
    first, events = await run(question)
    second, again = await run(question)
    assert (first, calls_of(events)) == (second, calls_of(again))
    assert "add_todo" not in {name for name, _ in calls_of(events)}


@needs_model
def test_a_model_whose_template_has_room_for_tools_gets_them_from_llama_cpp(tmp_path: Path) -> None:
    assert WEIGHTS is not None
    engine = Engine.shared(with_template(WEIGHTS, tmp_path / "with-tools.gguf", ROOM_FOR_TOOLS))
    provider, deadline = local.LocalProvider(), Deadline.after(200)
    try:
        assert engine.ready()["supports_tools"]
        used = []
        for tools in ((), (SEARCH,), FERRY):
            request = Request(
                "with-tools", (User(("Is there fog?",)),), tools=tools, max_output_tokens=8, temperature=0
            )
            raw = provider.send(engine, provider.encode(request).payload, deadline)
            used.append(provider.decode(raw, request).usage.input_tokens)
        assert used == sorted(set(used)), "each tool stands in the prompt"
    finally:
        engine.stop()


def test_the_questions_on_the_journal_are_sound() -> None:
    cases = json.loads((FIXTURES / "questions.json").read_text("utf-8"))["questions"]
    assert len(cases) == 30
    assert sum(case["held_out"] for case in cases) == 10
    for case in cases:
        texts = [" ".join((FIXTURES / "journal" / path).read_text("utf-8").split()).lower() for path in case["sources"]]
        for words in case["words"] if texts else ():
            assert any(words.lower() in text for text in texts), (case["no"], words)
