// The editor of journal.json: line numbers, problems by line, formatting, and suggestions from the server.

import { say, send } from "/static/host.js";

const area = document.getElementById("text");
const numbers = document.querySelector(".numbers");
const problems = document.getElementById("problems");
const list = document.getElementById("suggestions");
const suggested = document.getElementById("suggested");
const format = document.getElementById("format");

// The text whose save was refused: that page leads to its first problem.
const refused = "line" in problems.dataset ? area.value : null;

let wrong = new Set();
let options = [];
let chosen = -1;
let asked = 0;
let drawn = "";

// --- lines

function drawNumbers() {
  const count = area.value.split("\n").length;
  const wanted = `${count} ${[...wrong]}`;
  if (wanted !== drawn) writeNumbers(count);
  drawn = wanted;
  numbers.scrollTop = area.scrollTop;
}

function writeNumbers(count) {
  const rows = [];
  for (let line = 1; line <= count; line += 1) {
    const row = document.createElement("span");
    row.textContent = `${line}\n`;
    if (wrong.has(line)) row.className = "wrong-line";
    rows.push(row);
  }
  numbers.replaceChildren(...rows);
}

const lineHeight = () => parseFloat(getComputedStyle(area).lineHeight);

function fitNumbers() {
  numbers.style.height = `${area.offsetHeight}px`;
}

/** Selects a line, which is then in sight as a whole. */
function goTo(line) {
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  area.scrollTop = Math.max(0, (line - 6) * lineHeight());
  area.scrollIntoView({ block: "nearest" });
  const below = (line + 1) * lineHeight() - area.scrollTop + area.getBoundingClientRect().top - window.innerHeight;
  if (below > 0) window.scrollBy(0, below);
}

function followHash() {
  const match = /^#line-(\d+)$/.exec(location.hash);
  if (match) goTo(Number(match[1]));
}

// --- what is wrong

function later(work, delay) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, delay);
  };
}

function show(found) {
  wrong = new Set(found.map((row) => row.line).filter(Boolean));
  problems.replaceChildren();
  if (found.length) problems.append(noticeOf(found));
  drawNumbers();
}

function noticeOf(found) {
  const notice = document.createElement("div");
  notice.className = "notice bad";
  const words = document.createElement("p");
  words.textContent = area.value === refused ? "Not saved:" : "Not usable:";
  const rows = document.createElement("ul");
  rows.className = "troubles";
  for (const row of found) rows.append(problemOf(row));
  notice.append(words, rows);
  return notice;
}

function problemOf(row) {
  const item = document.createElement("li");
  const path = document.createElement("code");
  path.textContent = row.path;
  item.append(path, `: found ${row.found}, expected ${row.allowed}`);
  if (row.line) {
    const link = document.createElement("a");
    link.href = `#line-${row.line}`;
    link.textContent = `line ${row.line}`;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      goTo(row.line);
    });
    item.append(" (", link, ")");
  }
  return item;
}

async function check() {
  const text = area.value;
  try {
    const answer = await send("/app/settings/api/check", { json: { text } });
    if (text === area.value) show(answer.problems);
  } catch (error) {
    say(error.message, "bad");
  }
}

const checkSoon = later(check, 500);

// --- suggestions; the server counts code points, a textarea counts UTF-16 units

const points = (text) => Array.from(text).length;
const units = (text, count) => Array.from(text).slice(0, count).join("").length;

function close() {
  list.hidden = true;
  list.replaceChildren();
  options = [];
  chosen = -1;
  area.removeAttribute("aria-activedescendant");
  area.removeAttribute("aria-controls");
}

async function suggest(atOnce) {
  const text = area.value;
  const at = area.selectionStart;
  asked += 1;
  const mine = asked;
  try {
    const answer = await send("/app/settings/api/complete", { json: { text, cursor: points(text.slice(0, at)) } });
    if (mine !== asked || document.activeElement !== area) return;
    if (text !== area.value || at !== area.selectionStart) return;
    open(answer.suggestions, atOnce);
  } catch (error) {
    close();
    if (atOnce) say(error.message, "bad");
  }
}

function open(found, atOnce) {
  close();
  if (!found.length) {
    if (atOnce) suggested.textContent = "No suggestion here";
    return;
  }
  options = found;
  found.forEach((row, index) => list.append(optionOf(row, index)));
  place();
  list.hidden = false;
  area.setAttribute("aria-controls", "suggestions");
  choose(0);
  suggested.textContent = `${found.length} suggestions`;
}

function optionOf(row, index) {
  const option = document.createElement("li");
  option.id = `suggestion-${index}`;
  option.setAttribute("role", "option");
  const label = document.createElement("span");
  label.className = "mono";
  label.textContent = row.label;
  const detail = document.createElement("small");
  detail.textContent = row.detail;
  option.append(label, detail);
  option.addEventListener("mousedown", (event) => {
    event.preventDefault();
    choose(index);
    take();
  });
  return option;
}

function place() {
  const line = area.value.slice(0, area.selectionStart).split("\n").length;
  const below = line * lineHeight() - area.scrollTop + 12;
  list.style.top = `${Math.min(Math.max(below, 0), area.offsetHeight)}px`;
  list.style.left = `${numbers.offsetWidth + 8}px`;
}

function choose(index) {
  chosen = (index + options.length) % options.length;
  [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === chosen)));
  const option = list.children[chosen];
  option.scrollIntoView({ block: "nearest" });
  area.setAttribute("aria-activedescendant", option.id);
}

function take() {
  const row = options[chosen];
  const text = area.value;
  const start = units(text, row.start);
  const end = units(text, row.end);
  area.setRangeText(row.insert, start, end, "end");
  const inside = /(\{\}|\[\]|"")$/.test(row.insert) && row.insert.length > 2 ? 1 : 0;
  area.selectionStart = area.selectionEnd = start + row.insert.length - inside;
  close();
  changed();
}

// --- the keys: Tab is never taken

function onKey(event) {
  if (event.key === " " && event.ctrlKey) {
    event.preventDefault();
    suggest(true);
  } else if (!list.hidden) {
    onListKey(event);
  }
}

function onListKey(event) {
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in moves) {
    event.preventDefault();
    choose(chosen + moves[event.key]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    take();
  } else if (event.key === "Escape") {
    event.preventDefault();
    close();
  } else if (event.key === "Tab" || event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
    close();
  }
}

const suggestSoon = later(() => {
  if (document.activeElement === area) suggest(false);
}, 150);

function changed() {
  drawNumbers();
  checkSoon();
}

area.addEventListener("input", (event) => {
  changed();
  close();
  if (event.inputType === "insertText" && /["\w.]/.test(event.data ?? "")) suggestSoon();
});
area.addEventListener("keydown", onKey);
area.addEventListener("scroll", () => {
  numbers.scrollTop = area.scrollTop;
  close();
});
area.addEventListener("blur", close);
new ResizeObserver(fitNumbers).observe(area);
addEventListener("hashchange", followHash);

format.hidden = false;
format.addEventListener("click", async () => {
  try {
    const answer = await send("/app/settings/api/format", { json: { text: area.value } });
    area.value = answer.text;
    changed();
    say("Formatted; it is not saved yet.");
  } catch (error) {
    say(error.message, "bad");
  }
});


drawNumbers();
check();
followHash();
if (Number(problems.dataset.line)) goTo(Number(problems.dataset.line));
