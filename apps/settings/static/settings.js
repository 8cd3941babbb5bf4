// The list of contexts: what is searched for is shown, what the address names is opened.

const search = document.getElementById("search");
const ownOnly = document.getElementById("own-only");
const matches = document.getElementById("matches");
const none = document.getElementById("none");

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const group of document.querySelectorAll(".group")) {
    let here = 0;
    for (const rule of group.querySelectorAll(".rule")) {
      const text = rule.dataset.find.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!ownOnly.checked || rule.dataset.own === "yes");
      rule.hidden = !fits;
      here += fits ? 1 : 0;
    }
    group.hidden = here === 0;
    count += here;
  }
  none.hidden = count > 0;
  matches.textContent = `${count} contexts and rules`;
}

const namedNow = () => (location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null);

// What the page before wanted said is at the top; where the address leads further down, it is said there.
function carrySaid() {
  const notice = document.querySelector("[data-said]");
  const named = namedNow();
  if (!notice || !named) return;
  const words = [...notice.childNodes];
  if (named.closest(".grid")) named.prepend(notice); // beside the cards of a grid it would be a card itself
  else named.before(notice);
  notice.replaceChildren(); // what comes into a status that stands there already is read out
  requestAnimationFrame(() => {
    notice.append(...words);
    notice.scrollIntoView({ block: "nearest" });
  });
}

function openNamed() {
  const named = namedNow();
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.querySelector("summary").focus();
  } else if (named) {
    named.tabIndex = -1;
    named.focus();
  }
}

if (search) {
  search.addEventListener("input", filter);
  ownOnly.addEventListener("change", filter);
  filter();
}
addEventListener("hashchange", openNamed);
// htmx listens from this event on, and it did so first: what is opened now is fetched.
document.addEventListener("DOMContentLoaded", () => {
  openNamed();
  carrySaid();
});

// After a test the card is a new one: the button that was pressed keeps the focus.
let pressed = "";
document.addEventListener("htmx:beforeRequest", (event) => {
  pressed = event.detail.elt.querySelector("button[id^='test-']")?.id ?? "";
});
document.addEventListener("htmx:afterSettle", () => {
  if (pressed) document.getElementById(pressed)?.focus();
  pressed = "";
});
