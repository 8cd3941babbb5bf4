// Agent runs that go on while one looks: their blocks come as server-sent events; it knows no app.

import { send, say } from "/static/host.js";

const ENDED = { completed: "The run is completed.", failed: "The run has failed.", cancelled: "The run was cancelled." };

/** The place of a block in its list. */
function placeOf(list, key) {
  return document.getElementById(`${list.dataset.run}-${key}`);
}

function put(list, { key, html }) {
  const old = placeOf(list, key);
  const item = document.createElement("li");
  item.id = `${list.dataset.run}-${key}`;
  item.className = "run-block";
  item.innerHTML = html; // made by the server's templates, which escape what models and tools say
  const details = item.querySelector("details");
  if (details && old?.querySelector("details")?.open) details.open = true;
  if (old) old.replaceWith(item);
  else list.append(item);
}

function goOn(list, { key, html }) {
  const words = placeOf(list, key)?.querySelector("[data-text]");
  if (words) words.innerHTML = html; // Markdown that the server has rendered and cleaned
}

/** Shows how long a run has lasted, as long as it does; a run's id is when it was asked for. */
function runClock(list) {
  const show = () => {
    const seconds = Math.max(0, Math.round((Date.now() - Number(list.dataset.run)) / 1000));
    list.dataset.clock = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
  show();
  return setInterval(show, 1000);
}

/** Follows the run of a list of blocks until it is over; `onEnd` gets its state. Gives what stops it. */
export function follow(list, onEnd = () => {}) {
  const source = new EventSource(list.dataset.events);
  const clock = runClock(list);
  const hear = (name, act) => source.addEventListener(name, (event) => {
    const isAtEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 80;
    act(JSON.parse(event.data));
    if (isAtEnd) window.scrollTo({ top: document.body.scrollHeight });
  });
  hear("block", (data) => put(list, data));
  hear("more", (data) => goOn(list, data));
  hear("gone", ({ key }) => placeOf(list, key)?.remove());
  hear("end", ({ state, reason }) => {
    source.close();
    clearInterval(clock);
    list.removeAttribute("aria-busy");
    delete list.dataset.events;
    onEnd(state, reason);
  });
  let isLost = false;
  source.addEventListener("open", () => (isLost = false));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CONNECTING && !isLost) {
      isLost = true;
      say("The server does not answer. This page goes on as soon as it does.", "warn");
    }
    if (source.readyState === EventSource.CLOSED && list.dataset.events) {
      say("The run cannot be followed any more. Reload the page to see how it stands.", "bad");
    }
  });
  return () => source.close();
}

// Forms that say something to a run (data-word): sent without leaving the page, whose blocks show what came of it.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !("word" in form.dataset)) return;
  event.preventDefault();
  const buttons = [...form.querySelectorAll("button")];
  const data = new FormData(form, event.submitter);
  buttons.forEach((button) => (button.disabled = true));
  try {
    await send(form.action, { form: data });
    if (form.dataset.word === "reload") location.reload();
  } catch (error) {
    say(error.message, "bad");
    buttons.forEach((button) => (button.disabled = false));
    event.submitter?.focus(); // a disabled button loses it
  }
});

/** What is said of an end, for screen readers too. */
export function wordsOfEnd(state, reason = "") {
  return reason === "cut off" || reason === "no end" ? "The run was cut off: its process is gone." : ENDED[state];
}
