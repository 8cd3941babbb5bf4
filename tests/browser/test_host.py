"""The host's own parts in a browser: charts, messages, the gate, links from elsewhere, text that would like to act."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.host.security.password import set_password
from tests.browser.harness import Served, Watch, axe, serving
from tests.journal_folder import JournalFolder

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
CHART = {
    "type": "bar",
    "stacked": True,
    "unit": "usd",
    "labels": ["2 Nov", "3 Nov"],
    "links": ["/app/look/?day=20261102", "/app/look/?day=20261103"],
    "series": [{"label": "google", "values": [0.25, 1.5]}, {"label": HOSTILE, "values": [0.5, 0]}],
}
PAGE = """
{% extends "page.html" %}
{% block main %}
<h1>Look</h1>
{{ parts.chart("cost", chart, "Cost by day") }}
{{ parts.chart("names", dict(chart, horizontal=True), "On its side") }}
<div class="table-wrap" tabindex="0" role="region" aria-label="Cost"><table>
  <thead><tr><th>Day</th><th class="n">Cost</th></tr></thead>
  <tbody>{% for label in chart.labels %}
    <tr><td>{{ label }}</td><td class="n">{{ 0.75 | usd }}</td></tr>
  {% endfor %}</tbody>
</table></div>
<p id="text">{{ hostile }}</p>
<div id="markdown">{{ hostile | markdown }}</div>
<button class="button" hx-post="/app/look/refuse" hx-target="#out">Refuse</button>
<button class="button" hx-post="/app/look/more" hx-target="#out">More</button>
<form class="fields" method="post" action="/app/look/form">{{ csrf_field() }}{{ parts.field("Name", "name") }}
  <button class="button primary">Send</button></form>
<div id="out"></div>
{% endblock %}
"""
CODE = """
import json
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route
from apps.host.templating import render

HOSTILE, CHART = json.loads({facts!r})

def workspace(request):
    return {{"chart": CHART, "hostile": HOSTILE}}

def refuse(request):
    raise HTTPException(409, detail="name: found " + HOSTILE + ", expected a word")

def more(request):
    return HTMLResponse('<p>It came.</p><script>document.title="taken"</script>')

async def form(request):
    fields = await request.form()
    return RedirectResponse("/app/look/?name=" + fields["name"], 303)

ROUTES = [Route("/refuse", refuse, methods=["POST"]), Route("/more", more, methods=["POST"]),
          Route("/form", form, methods=["POST"])]
"""


@pytest.fixture(name="example")
def _example(journal: JournalFolder) -> JournalFolder:
    """A journal with an app of its own that uses all parts."""
    app = journal.path.parent / "more" / "look"
    app.mkdir(parents=True)
    (app / "workspace.html").write_text(PAGE, encoding="utf-8")
    (app / "routes.py").write_text(CODE.format(facts=json.dumps([HOSTILE, CHART])), encoding="utf-8")
    journal.write({"descriptors": {"apps": [str(app.parent)]}})
    return journal


@pytest.fixture(name="locked")
def _locked(browser: Browser, example: JournalFolder) -> Iterator[Watch]:
    """Pages behind the password."""
    set_password("four plain words here")
    with serving(example, "--password") as served:
        watch = Watch(browser, served.url)
        yield watch
        watch.close()


def _open(page: Page) -> None:
    page.goto("/app/look/")
    page.wait_for_function("() => window.Chart && Chart.getChart(document.querySelector('canvas'))")


def _color(page: Page) -> str:
    return str(page.evaluate("() => Chart.getChart(document.querySelector('canvas')).data.datasets[0].backgroundColor"))


def test_a_chart_has_its_figures_and_can_be_hovered(page: Page) -> None:
    _open(page)
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    page.wait_for_function("() => Chart.getChart(document.querySelector('canvas')).tooltip.opacity > 0")
    shown = page.evaluate(
        "() => { const t = Chart.getChart(document.querySelector('canvas')).tooltip;"
        " return [...t.title, ...t.body.flatMap((b) => b.lines)].map((line) => line.trim()); }"
    )
    assert shown == ["3 Nov", "google: $1.50"]


def test_a_click_on_a_chart_goes_to_what_it_shows(page: Page) -> None:
    _open(page)
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    page.wait_for_url("**/app/look/?day=20261103")


def test_a_chart_of_long_names_lies_on_its_side(page: Page) -> None:
    _open(page)
    box = page.locator("canvas").nth(1).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.2)
    page.wait_for_url("**/app/look/?day=20261102")


def test_charts_take_the_colours_of_the_look(page: Page) -> None:
    _open(page)
    light = _color(page)
    for _ in range(2):
        page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert _color(page) != light
    assert axe(page) == []


def test_no_text_gets_a_say_in_the_page(page: Page) -> None:
    _open(page)
    expect(page.locator("#text")).to_have_text(HOSTILE)
    expect(page.locator("#markdown script, #markdown img")).to_have_count(0)
    expect(page).to_have_title("Look – muse")


def test_what_is_refused_is_said_and_stays_until_it_is_closed(page: Page, watch: Watch) -> None:
    watch.allow("409")
    _open(page)
    page.get_by_role("button", name="Refuse").click()
    message = page.locator("#messages .notice")
    expect(message).to_contain_text(f"name: found {HOSTILE}, expected a word")
    expect(page.locator("#out")).to_be_empty()
    message.get_by_role("button", name="Close").click()
    expect(message).to_have_count(0)
    expect(page).to_have_title("Look – muse")


def test_a_fragment_comes_without_its_scripts(page: Page) -> None:
    _open(page)
    page.get_by_role("button", name="More").click()
    expect(page.locator("#out")).to_have_text("It came.")
    expect(page).to_have_title("Look – muse")


def test_a_plain_form_needs_no_script(watch: Watch) -> None:
    page = watch.open("/app/look/", java_script_enabled=False)
    page.get_by_label("Name").fill("Maren")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/app/look/?name=Maren")


def test_a_link_from_another_site_keeps_the_session(page: Page, watch: Watch, served: Served) -> None:
    watch.allow("request to another host")
    _open(page)
    token = page.locator("meta[name=csrf-token]").get_attribute("content")
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    page.evaluate("url => { location.href = url }", f"{served.url}/app/look/?from=elsewhere")
    page.wait_for_url(f"{served.url}/app/look/?from=elsewhere")
    expect(page.get_by_role("heading", name="Look")).to_be_visible()
    assert page.locator("meta[name=csrf-token]").get_attribute("content") == token


def test_the_gate_opens_with_the_password_and_closes_again(locked: Watch) -> None:
    locked.allow("403")
    page = locked.open("/app/look/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert axe(page) == []
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This is not the password.")
    page.get_by_label("Password").fill("four plain words here")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Look")).to_be_visible()
    page.wait_for_load_state()  # a page that is left while its scripts come in has errors that are nobody's
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/app/look/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
