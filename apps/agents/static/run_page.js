// The page of one run: followed while it lasts, loaded again for its sums when it is over.

import { follow, wordsOfEnd } from "/static/run.js";

const list = document.querySelector("[data-events]");

if (list) {
  const stop = follow(list, (state) => {
    document.getElementById("ended").textContent = wordsOfEnd(state);
    location.reload();
  });
  new MutationObserver(() => document.getElementById("waiting")?.remove()).observe(list, { childList: true });
  window.addEventListener("pagehide", stop);
}
