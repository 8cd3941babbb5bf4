"""The contestants of the agent loop: muse's, and one written by hand over the raw SDK; it measures nothing.

A loop by hand keeps one client, calls the SDK's typed method, hands the model's own messages back as they are, and
calls the tools as plain functions or over an MCP session.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer

from benchmarks.blocks import AsyncCall
from benchmarks.callers import MAX_TOKENS, PROMPT, model_of
from muse import providers

CallTool = Callable[[str, dict[str, Any]], Awaitable[str]]
Loop = Callable[[CallTool], Awaitable[str]]


def search_journal(query: str, limit: int = 5) -> str:
    """Find what was said, noted and concluded about something, the best passages first."""
    return f"Nothing was said of {query!r} ({limit} at most)."


def list_days(limit: int = 10, offset: int = 0) -> str:
    """List the days of the journal, the latest first."""
    return f"{limit} days from {offset} on."


def read_entry(entry: str, offset: int = 0) -> str:
    """Read an entry of the journal, from a character on."""
    return f"{entry} from {offset} on."


def add_todo(text: str, due: str | None = None) -> str:
    """Add a to-do to today's list."""
    return f"{text} until {due}."


TOOLS: Mapping[str, Callable[..., str]] = {
    tool.__name__: tool for tool in (search_journal, list_days, read_entry, add_todo)
}


def server() -> MCPServer[Any]:
    """The four tools as an MCP server in this process."""
    made: MCPServer[Any] = MCPServer("bench", log_level="ERROR")
    for tool in TOOLS.values():
        made.add_tool(tool)
    return made


async def listed(made: MCPServer[Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, description and schema of each tool, as a server lists them."""
    async with Client(made) as client:
        return [(tool.name, tool.description or "", tool.input_schema) for tool in (await client.list_tools()).tools]


def ours(provider: str, made: MCPServer[Any]) -> AsyncCall:
    """One run of muse's loop."""
    backend = providers.get_provider_module(provider)
    config = {
        "prompt": PROMPT,
        "model": model_of(provider),
        "mcp_servers": {"bench": made},
        "context": f"bench.{provider}",
        "max_tokens": MAX_TOKENS,
    }
    return lambda: backend.run_agent(config)


def raw(loop: Loop) -> AsyncCall:
    """One run by hand, its tools called as the plain functions that they are."""

    async def call(name: str, args: dict[str, Any]) -> str:
        return TOOLS[name](**args)

    return lambda: loop(call)


def raw_over_mcp(loop: Loop, made: MCPServer[Any]) -> AsyncCall:
    """One run by hand, its tools called over an MCP session in memory, as muse calls them."""

    async def run() -> str:
        async with Client(made) as client:
            await client.list_tools()

            async def call(name: str, args: dict[str, Any]) -> str:
                answer: Any = await client.call_tool(name, args)
                return str(answer.content[0].text)

            return await loop(call)

    return run


async def loop_of(provider: str, made: MCPServer[Any]) -> Loop:
    """The loop by hand over `provider`'s SDK."""
    return _LOOPS[provider](model_of(provider), await listed(made))


def _openai(model: str, tools: list[tuple[str, str, dict[str, Any]]]) -> Loop:
    import openai

    client = openai.AsyncOpenAI()
    given: Any = [
        {"type": "function", "name": name, "description": text, "parameters": schema, "strict": False}
        for name, text, schema in tools
    ]

    async def loop(call_tool: CallTool) -> str:
        turns: Any = [{"role": "user", "content": PROMPT}]
        while True:
            reply = await client.responses.create(model=model, input=turns, tools=given, max_output_tokens=MAX_TOKENS)
            calls = [item for item in reply.output if item.type == "function_call"]
            if not calls:
                return reply.output_text
            turns += reply.output
            for call in calls:
                output = await call_tool(call.name, json.loads(call.arguments))
                turns.append({"type": "function_call_output", "call_id": call.call_id, "output": output})

    return loop


def _anthropic(model: str, tools: list[tuple[str, str, dict[str, Any]]]) -> Loop:
    import anthropic

    client = anthropic.AsyncAnthropic()
    given: Any = [{"name": name, "description": text, "input_schema": schema} for name, text, schema in tools]

    async def loop(call_tool: CallTool) -> str:
        turns: Any = [{"role": "user", "content": PROMPT}]
        while True:
            reply = await client.messages.create(model=model, messages=turns, tools=given, max_tokens=MAX_TOKENS)
            calls = [block for block in reply.content if block.type == "tool_use"]
            if not calls:
                return next(block.text for block in reply.content if block.type == "text")
            turns.append({"role": "assistant", "content": reply.content})
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": await call_tool(call.name, dict(call.input))}
                for call in calls
            ]
            turns.append({"role": "user", "content": results})

    return loop


def _google(model: str, tools: list[tuple[str, str, dict[str, Any]]]) -> Loop:
    from google import genai
    from google.genai import types

    client = genai.Client().aio
    declared = [
        types.FunctionDeclaration(name=name, description=text, parameters_json_schema=schema)
        for name, text, schema in tools
    ]
    config = types.GenerateContentConfig(
        temperature=0.3,
        max_output_tokens=MAX_TOKENS,
        tools=[types.Tool(function_declarations=declared)],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )

    async def loop(call_tool: CallTool) -> str:
        turns: Any = [types.Content(role="user", parts=[types.Part(text=PROMPT)])]
        while True:
            reply: Any = await client.models.generate_content(model=model, contents=turns, config=config)
            if not reply.function_calls:
                return str(reply.text)
            turns.append(reply.candidates[0].content)
            results = [
                types.Part.from_function_response(
                    name=call.name, response={"result": await call_tool(call.name, call.args)}
                )
                for call in reply.function_calls
            ]
            turns.append(types.Content(role="user", parts=results))

    return loop


_LOOPS: Mapping[str, Callable[[str, list[tuple[str, str, dict[str, Any]]]], Loop]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
}
