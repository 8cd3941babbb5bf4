"""An agent out of a wish: its persona and instruction, checked as personas are; it prints nothing and saves nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from muse import models
from muse.agent_loop.tool_registry import ToolModule, find_tool_modules
from muse.cortex.schedules import scheduled_times
from muse.errors import ConfigError, InvalidReply
from muse.journal import config_loader, descriptors
from muse.journal.descriptors import Descriptor
from muse.journal.personas import get_agents, text_fields
from muse.journal.prompts import identity_fields, load_prompt, render
from muse.types.json_schema.validation import validate
from think.agent_generator.rules import NAME, name_of, schedule_of
from think.entries.transcripts import UNSPACED, plain
from think.insights.generative import LEAST_TOKENS
from think.llm.paths import PROMPTS, TOPICS
from think.llm.sentence_ranking import telling_words
from think.llm.title_prompt import read_title, title_grammar

CONTEXT = "planner.generate"

_NO_SCHEDULE = "none"
_USUAL_TURNS = 16
_MOST_TEMPLATES = 4
_LONGEST_WISH = 2_000  # characters: with the examples of a prompt it fits a model that reads little
_TASK = "Your task, in $preferred's own words: "


class Plan(Struct, frozen=True):
    """A persona that is not saved yet: name, JSON fields and text; `template` is what it is made of."""

    name: str
    fields: Mapping[str, Any]
    instruction: str
    template: str = ""
    made_by: str = ""


class PlanForm(Struct, frozen=True):
    """What a model is asked for; a reply that would be no usable persona is sent back once."""

    name: str
    title: str
    description: str
    instruction: str
    prompt: str
    tools: list[str]
    schedule: str = _NO_SCHEDULE
    max_turns: int = _USUAL_TURNS

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Its JSON Schema, with the packs that there are now."""
        said = {"type": "string", "pattern": r"\S"}
        texts = dict.fromkeys(("title", "description", "instruction", "prompt"), said)
        packs = [pack.name for pack in find_tool_modules()]
        properties = {
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
            **texts,
            "tools": {"type": "array", "items": {"type": "string", "enum": packs}, "uniqueItems": True},
            "schedule": {"type": "string"},
            "max_turns": {"type": "integer", "minimum": 1, "maximum": 100},
        }
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """The plan in a reply.

        Raises:
            ValueError: it is not of the form, its schedule cannot be read, or its text names a field there is not.
        """
        validate(obj, cls.model_json_schema())
        require_usable(obj["schedule"], obj["instruction"])
        return cls(**obj)


def require_usable(schedule: str, instruction: str) -> None:
    """See that a schedule can be read, and that all fields of an instruction are known.

    Raises:
        ConfigError: it cannot.
    """
    if schedule != _NO_SCHEDULE:
        scheduled_times(schedule, datetime(2026, 1, 1))
    render(instruction, text_fields(config_loader.load().config.identity), where="instruction")


def make_plan(wish: str) -> Plan:
    """A persona for a wish, written by a model; by one that reads little, put together out of an existing persona.

    Raises:
        ConfigError: the wish says nothing, or nobody can be asked.
        InvalidReply: the model's second answer is no usable persona either.
        MuseError: the call failed.
    """
    said = plain(wish)
    if len(telling_words(said)) < 2 and not UNSPACED.search(said):
        raise ConfigError("WISH", repr(wish[:80]), "a sentence about what the agent is to do")
    if len(said) > _LONGEST_WISH:
        raise ConfigError("WISH", f"{len(said):,} characters", f"{_LONGEST_WISH:,} at most: a sentence or two")
    route = models.route(CONTEXT)
    made_by = f"{route.provider} {route.model}"
    if models.context_tokens(route) < LEAST_TOKENS:
        return _put_together(said, made_by)
    return _written(said, made_by)


def _written(wish: str, made_by: str) -> Plan:
    known = "\n".join(f"- {name}: {fields['title']}" for name, fields in sorted(get_agents().items()))
    packs = "\n".join(map(_shown, find_tool_modules()))
    identity = identity_fields(config_loader.load().config.identity)
    prompt = load_prompt("planner", PROMPTS, {**identity, "wish": wish, "packs": packs, "known": known}).text
    form = models.generate_object(prompt, CONTEXT, PlanForm)
    entries = {
        "title": form.title,
        "description": form.description,
        "tools": form.tools,
        "max_turns": form.max_turns,
        "prompt": form.prompt,
    }
    if form.schedule != _NO_SCHEDULE:
        entries["schedule"] = form.schedule
    return Plan(form.name, entries, form.instruction.strip() + "\n", made_by=made_by)


def _shown(pack: ToolModule) -> str:
    tools = "; ".join(f"{tool.name}: {tool.description.partition(chr(10))[0]}" for tool in pack.tools)
    return f"- {pack.name}: {tools}"


def _put_together(wish: str, made_by: str) -> Plan:
    """An existing persona with the wish as its task: a small model chooses it and titles it, rules do the rest."""
    templates = _templates(wish)
    chosen = _choose(wish, templates)
    title = _entitle(wish)
    template = templates[chosen]
    schedule = schedule_of(wish)
    text = Path(template.path).with_suffix(".txt").read_text(encoding="utf-8").strip()
    task = wish.replace("$", "$$")
    entries: dict[str, Any] = {
        "title": title,
        "description": wish,
        "tools": _tools(wish, template),
        "max_turns": template.data.get("max_turns", _USUAL_TURNS),
        "prompt": f"{wish.rstrip('.')}. This is about $day." if schedule else wish,
    }
    if schedule:
        entries["schedule"] = schedule
    instruction = f"{_TASK}{task}\n\nYou do it in the way of this agent:\n\n{text}\n"
    require_usable(schedule or _NO_SCHEDULE, instruction)
    return Plan(name_of(title), entries, instruction, template.name, made_by)


def _templates(wish: str) -> Mapping[str, Descriptor]:
    """The personas of the house and the journal's own whose descriptions share most words with a wish, by title."""
    snapshot = config_loader.load()
    found = descriptors.find(snapshot.config.descriptors, os.path.dirname(snapshot.path)).descriptors
    agents = [one for one in found if one.kind == "agent" and one.owner == "system"]
    texts = [one for one in agents if _is_template(Path(one.path).with_suffix(".txt"))]
    if not texts:
        raise ConfigError("descriptors.agents", "no persona", "one at least that a new one can be made of")
    wanted = telling_words(wish)
    ranked = sorted(texts, key=lambda one: -len(wanted & telling_words(_about(one))))
    return {str(one.data.get("title") or one.name): one for one in ranked[:_MOST_TEMPLATES]}


def _is_template(text: Path) -> bool:
    """Whether a persona has a text of its own, and not one that was put together out of another's."""
    return text.is_file() and not text.read_text(encoding="utf-8", errors="replace").startswith(_TASK)


def _about(agent: Descriptor) -> str:
    return " ".join(str(agent.data.get(name) or "") for name in ("title", "description", "prompt"))


def _choose(wish: str, templates: Mapping[str, Descriptor]) -> str:
    """The title of the persona that a model takes for the nearest."""
    titles = list(templates)
    if len(titles) == 1:
        return titles[0]
    grammar = "root ::= " + " | ".join(f'" {title.replace(chr(34), "")}\\n"' for title in titles)
    prompt = load_prompt("template", PROMPTS, {"wish": wish}).text
    reply = models.reply(prompt, CONTEXT, temperature=0.0, complete=True, grammar=grammar, max_output_tokens=64)
    said = reply.text.strip().partition("\n")[0].strip().casefold()
    for title in titles:
        if title.replace('"', "").casefold() == said:
            return title
    raise InvalidReply(f"template: found {said[:80]!r}, expected one of {', '.join(titles)}", text=reply.text)


def _entitle(wish: str) -> str:
    prompt = load_prompt("daily_title", TOPICS, {"sentence": wish}).text
    grammar = title_grammar(wish)
    reply = models.reply(prompt, CONTEXT, temperature=0.0, complete=True, grammar=grammar, max_output_tokens=64)
    return read_title(reply.text)


def _tools(wish: str, template: Descriptor) -> list[str]:
    """The packs of the template, and those that the wish names."""
    said = wish.lower().replace("-", "")
    known = [pack.name for pack in find_tool_modules()]
    given = template.data.get("tools")
    own = [name for name in given if isinstance(name, str)] if isinstance(given, list) else known
    return list(dict.fromkeys([*own, *(name for name in known if name.rstrip("s") in said)]))
