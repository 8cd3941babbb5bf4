// What every page has: requests with the token, messages, the switch for light and dark; it knows no app.

const token = () => document.querySelector('meta[name="csrf-token"]').content;

/**
 * Sends a request that changes something, with the token; gives the parsed JSON (null where there is none).
 * Throws an Error with the server's words; its `status` and `body` are the answer's.
 */
export async function send(url, { method = "POST", json, form, signal } = {}) {
  const headers = { "X-CSRF-Token": token(), Accept: "application/json" };
  let body;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  } else if (form instanceof HTMLFormElement) {
    body = new FormData(form);
  } else if (form !== undefined) {
    body = form instanceof FormData || form instanceof URLSearchParams ? form : new URLSearchParams(form);
  }
  return answerOf(await reach(url, { method, headers, body, signal, credentials: "same-origin" }));
}

/** Asks for JSON. Throws as `send` does. */
export async function ask(url, { signal } = {}) {
  return answerOf(await reach(url, { headers: { Accept: "application/json" }, signal, credentials: "same-origin" }));
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(AWAY, { cause: error });
  }
}

async function answerOf(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = null;
  }
  if (response.ok) return body;
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const error = new Error(body?.error ?? `${response.status} ${response.statusText}`);
  error.status = response.status;
  error.body = body;
  throw error;
}

const AWAY = "The server does not answer. Is muse serve still running?";
const LOOK_AGAIN_MS = 2000;
let looks = 0;

/** Takes the word that the server is away back as soon as it answers. */
function awaitReturn() {
  clearTimeout(looks);
  looks = setTimeout(lookAgain, LOOK_AGAIN_MS);
}

async function lookAgain() {
  try {
    await fetch("/static/icon.svg", { method: "HEAD", cache: "no-store" });
    forget(AWAY);
  } catch {
    awaitReturn();
  }
}

function forget(text) {
  for (const notice of document.querySelectorAll("#messages .notice")) if (notice.dataset.text === text) notice.remove();
}

/** Shows a message and has it read out: kind is "", "ok", "warn" or "bad". A bad one stays until it is closed. */
export function say(text, kind = "") {
  if (text === AWAY) {
    forget(AWAY); // it is said once
    awaitReturn();
  }
  const place = document.getElementById("messages");
  const notice = document.createElement("div");
  notice.className = `notice ${kind}`;
  notice.dataset.text = text;
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "button quiet";
  close.textContent = "Close";
  close.addEventListener("click", () => notice.remove());
  notice.append(words, close);
  place.append(notice);
  while (place.children.length > 4) place.firstElementChild.remove();
  if (kind !== "bad") setTimeout(() => notice.remove(), 8000);
}

// --- light and dark

const THEMES = ["auto", "light", "dark"];
const WORDS = { auto: "as the system", light: "light", dark: "dark" };

function setUpTheme(button) {
  const show = () => {
    const theme = document.documentElement.dataset.theme;
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
    button.setAttribute("aria-label", `Colours: ${WORDS[theme]}`);
    button.title = `Colours: ${WORDS[theme]}`;
  };
  button.addEventListener("click", () => {
    const now = THEMES.indexOf(document.documentElement.dataset.theme);
    const next = THEMES[(now + 1) % THEMES.length];
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("muse-theme", next);
    } catch {
      say("The browser keeps nothing: the colours hold for this page only.", "warn");
    }
    show();
    document.dispatchEvent(new Event("muse:theme"));
  });
  show();
  button.hidden = false;
}

// --- htmx: what went wrong is said, and charts that came with a fragment are drawn

function wordsOf(html) {
  const text = new DOMParser().parseFromString(html, "text/html").body.textContent;
  return text.replace(/\s+/g, " ").trim();
}

document.addEventListener("htmx:responseError", (event) => {
  const xhr = event.detail.xhr;
  say(wordsOf(xhr.responseText) || `${xhr.status} ${xhr.statusText}`, "bad");
});
document.addEventListener("htmx:sendError", () => {
  say(AWAY, "bad");
});
document.addEventListener("htmx:load", (event) => drawCharts(event.detail.elt));

// --- how many runs wait for approval, in the top bar and the title

const WAITING_MS = 2000;

function entitleWaiting() {
  const count = Number(document.getElementById("waiting")?.dataset.count ?? 0);
  const title = document.title.replace(/^\(\d+\) /, "");
  const wanted = count ? `(${count}) ${title}` : title;
  if (document.title !== wanted) document.title = wanted;
}

async function lookForWaiting() {
  const place = document.getElementById("waiting");
  if (!place || document.hidden) return;
  try {
    const response = await fetch("/waiting", { credentials: "same-origin" });
    if (!response.ok || response.redirected) return;
    const html = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = html.getElementById("waiting");
    if (fresh && fresh.innerHTML !== place.innerHTML) place.replaceWith(fresh);
    entitleWaiting();
  } catch {
    // The server is away; the next look may find it.
  }
}

if (document.getElementById("waiting")) {
  setInterval(lookForWaiting, WAITING_MS);
  entitleWaiting();
}

// --- times that run out, and how long ago a moment was

function countDown() {
  for (const place of document.querySelectorAll("[data-until]")) {
    const left = Math.ceil((Number(place.dataset.until) - Date.now()) / 1000);
    place.textContent = left > 0 ? `It can be tried again in ${left} s.` : "It can be tried again now.";
  }
}

/** Adds how long ago it was to moments of the last day: <time data-ago>. */
function countUp() {
  for (const place of document.querySelectorAll("time[data-ago]")) {
    const minutes = Math.floor((Date.now() - Date.parse(place.dateTime)) / 60_000);
    if (minutes < 0 || minutes >= 24 * 60) continue;
    place.title ||= place.textContent;
    place.textContent = minutes < 1 ? "just now" : minutes < 60 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`;
  }
}

setInterval(countDown, 1000);
setInterval(countUp, 10_000);
document.addEventListener("htmx:load", countUp);
countDown();
countUp();

// --- charts, whose code is loaded only where there is one

async function drawCharts(root) {
  if (!(root instanceof Element) || (!root.querySelector("[data-chart]") && !root.matches("[data-chart]"))) return;
  const { draw } = await import("/static/charts.js");
  await draw(root);
}

const current = document.querySelector(".top nav [aria-current]");
if (current) current.closest("nav").scrollLeft = current.offsetLeft - current.closest("nav").offsetLeft - 40;
const button = document.getElementById("theme");
if (button) setUpTheme(button);
drawCharts(document.body);
