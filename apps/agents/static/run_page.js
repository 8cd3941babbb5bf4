// The page of one run: followed while it lasts, loaded again for its sums when it is over.

import { follow, wordsOfEnd } from "/static/run.js";

const ENDED = "muse-run-ended";
const list = document.querySelector("[data-events]");

// How it ended is said by the page that is loaded then: what stands on this one goes before it can be read out.
const told = sessionStorage.getItem(ENDED);
if (told) {
  sessionStorage.removeItem(ENDED);
  document.getElementById("ended").textContent = told;
}

if (list) {
  const stop = follow(list, (state, reason) => {
    sessionStorage.setItem(ENDED, wordsOfEnd(state, reason));
    location.reload();
  });
  new MutationObserver(() => document.getElementById("waiting")?.remove()).observe(list, { childList: true });
  window.addEventListener("pagehide", stop);
}
