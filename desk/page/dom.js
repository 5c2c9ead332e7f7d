// Builds the page. Text only ever becomes a text node, so that no name can be markup.

import { said, t, why } from "./text.js";

export function h(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  fill(node, given);
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

function fill(node, given) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (value === false) continue;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list" && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
}

export function svg(tag, given = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function show(place, ...children) {
  place.replaceChildren(...children.flat().filter(Boolean));
}

// Why something failed: a sentence with what to do, and beneath it what the program said.
export function reason({ code, message }) {
  return [h("span", { textContent: why(code) }),
    message && message !== why(code) && h("details", {}, h("summary", { textContent: t("detail") }), h("span", { lang: "en", textContent: message }))];
}

// Shows a text, or why something failed, for a while; as long as its detail is open, it stays.
export function say(told) {
  const place = document.getElementById("said");
  show(place, ...(typeof told === "string" ? [told] : reason(told)));
  clearInterval(say.timer);
  say.timer = setInterval(() => place.querySelector("details[open]") ?? show(place), 8000);
}

export function button(text, onclick, more = {}) {
  return h("button", { type: "button", textContent: text, onclick, ...more });
}

// Whose weights these are stays in view, whatever is shown.
export function warn(notes) {
  const place = document.getElementById("weights");
  const shown = [...new Set(notes.filter(Boolean))];
  place.hidden = !shown.length;
  place.textContent = shown.map(said).join(" ");
}
