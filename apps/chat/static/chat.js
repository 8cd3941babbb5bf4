// Conversations: questions are sent without leaving the page, answers appear as they are written.

import { send, say } from "/static/host.js";
import { follow, wordsOfEnd } from "/static/run.js";

const form = document.getElementById("say");
const turns = document.getElementById("turns");
const files = form.elements.namedItem("pictures");
const previews = form.querySelector(".chat-previews");
const problem = document.getElementById("problem");

// --- answers

function watch(turn) {
  const list = turn.querySelector("[data-events]");
  showAsking();
  if (!list) return;
  new MutationObserver(() => turn.querySelector("[data-waiting]")?.remove()).observe(list, { childList: true });
  const stop = follow(list, async (state, reason) => {
    document.getElementById("ended").textContent = wordsOfEnd(state, reason);
    await renew(turn);
    showAsking();
    if (state === "completed") await entitle();
  });
  window.addEventListener("pagehide", stop);
}

/** Asking waits as long as an answer is being written. */
function showAsking() {
  const isAnswering = Boolean(turns?.querySelector("[data-events]"));
  const button = form.querySelector("#ask");
  button.disabled = isAnswering;
  button.textContent = isAnswering ? "Answering …" : "Ask";
}

async function fetched(address) {
  const response = await fetch(address, { credentials: "same-origin" });
  if (!response.ok) throw new Error("The answer cannot be shown here. Reload the page.");
  const html = new DOMParser().parseFromString(await response.text(), "text/html");
  return html.querySelector(".chat-turn");
}

async function renew(turn) {
  try {
    const open = [...turn.querySelectorAll("li:has(details[open])")].map((item) => item.id);
    const fresh = await fetched(turn.dataset.turn);
    for (const id of open) fresh.querySelector(`#${CSS.escape(id)} details`)?.setAttribute("open", "");
    turn.replaceWith(fresh);
    watch(fresh);
  } catch (error) {
    say(error.message, "bad");
  }
}

async function entitle() {
  const address = turns.dataset.title;
  turns.dataset.title = ""; // asked for once, whatever comes of it
  if (!address) return;
  try {
    const { title } = await send(address);
    document.getElementById("name").textContent = title;
    document.title = `${title} – muse`;
  } catch (error) {
    say(`No title could be made: ${error.message}`, "warn");
  }
}

async function add(answer) {
  if (!turns) {
    location.assign(answer.to);
    return;
  }
  for (const old of turns.querySelectorAll("[data-again]")) old.remove();
  const turn = await fetched(answer.turn);
  turns.append(turn);
  watch(turn);
  turn.scrollIntoView({ block: "start" });
}

// --- questions

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

/** What is answered to a question; one that does not arrive goes back to where it was typed. */
async function kept(sending, asked, text) {
  try {
    return await sending;
  } catch (error) {
    if (!text.value) text.value = asked.text;
    if (!chosen.length) choose(asked.pictures);
    throw error;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("#ask");
  if (button.disabled) return; // it is on its way
  complain("");
  const text = form.elements.namedItem("message");
  const asked = { text: text.value, pictures: chosen };
  const sending = send(form.action, { form }); // it has taken the words out of the form now
  button.disabled = true;
  text.value = "";
  choose([]);
  try {
    await add(await kept(sending, asked, text));
  } catch (error) {
    complain(error.message);
  } finally {
    showAsking();
    text.focus({ preventScroll: true });
  }
});

form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || !(event.target instanceof HTMLTextAreaElement)) return;
  event.preventDefault();
  const button = form.querySelector("#ask");
  if (!button.disabled) form.requestSubmit(button);
});

document.addEventListener("submit", async (event) => {
  const again = event.target;
  if (!(again instanceof HTMLFormElement) || !("again" in again.dataset)) return;
  event.preventDefault();
  for (const name of ["provider", "tier", "model"]) again.elements.namedItem(name).value = form.elements.namedItem(name).value;
  try {
    const answer = await send(again.action, { form: again });
    again.closest(".chat-turn").remove();
    await add(answer);
  } catch (error) {
    say(error.message, "bad");
  }
});

// --- pictures

const KINDS = files.accept.split(",");
const mostPictures = Number(form.dataset.mostPictures);
const mostBytes = Number(form.dataset.mostBytes);

let chosen = [];

function take(added) {
  complain("");
  for (const file of added) {
    if (!KINDS.includes(file.type)) complain(`${file.name}: found ${file.type || "no picture"}, expected PNG, JPEG, GIF or WebP.`);
    else if (file.size > mostBytes) complain(`${file.name}: found ${(file.size / 1e6).toFixed(1)} MB, expected ${mostBytes / 1e6} MB at most.`);
    else if (chosen.length >= mostPictures) complain(`At most ${mostPictures} pictures go with one question.`);
    else chosen.push(file);
  }
  choose(chosen);
}

function choose(kept) {
  chosen = kept;
  const held = new DataTransfer();
  chosen.forEach((file) => held.items.add(file));
  files.files = held.files;
  showPreviews();
}

function showPreviews() {
  for (const image of previews.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  previews.replaceChildren(...chosen.map(preview));
  previews.hidden = chosen.length === 0;
}

function preview(file) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  image.className = "chat-picture";
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "button quiet";
  remove.textContent = "Remove";
  remove.setAttribute("aria-label", `Remove ${file.name}`);
  remove.addEventListener("click", () => choose(chosen.filter((one) => one !== file)));
  item.append(image, remove);
  return item;
}

files.addEventListener("change", () => take([...files.files])); // beside those that were chosen before
form.addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files];
  if (pasted.length) {
    event.preventDefault();
    take(pasted);
  }
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    form.classList.toggle("dropping", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}

for (const turn of document.querySelectorAll(".chat-turn")) watch(turn);
