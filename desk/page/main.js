// Starts the page: what is known of the desk, the two views, and what changes.

import { call, follow } from "./api.js";
import { h, reason, say, show, warn } from "./dom.js";
import { choose, language, other, t, why } from "./text.js";
import { closeSee, openCompare, openSee } from "./see.js";
import { drawWork, update, updateProgress } from "./work.js";

const state = { about: null, studies: new Map() };
const main = document.getElementById("main");

function chrome() {
  document.getElementById("skip").textContent = t("skip");
  document.getElementById("disclaimer").textContent = t("disclaimer");
  const toggle = document.getElementById("language");
  toggle.textContent = other === "de" ? "Deutsch" : "English";
  toggle.onclick = () => choose(other);
  const theme = document.getElementById("theme");
  theme.textContent = "◐";
  theme.ariaLabel = t("theme");
  theme.onclick = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
    localStorage.setItem("theme", document.documentElement.dataset.theme);
  };
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
  show(document.getElementById("nav"), h("a", { href: "#/", textContent: t("work") }));
}

async function route() {
  const [, kind, ...ids] = location.hash.slice(1).split("/");
  closeSee();
  try {
    if (kind === "job") await openSee(main, ids[0], ids[1]);
    else if (kind === "compare") await openCompare(main, ids[0], ids[1]);
    else {
      warn(state.about.systems.map((system) => system.note));
      drawWork(main, state);
    }
    main.focus({ preventScroll: true });
  } catch (failure) {
    show(main, h("p", { className: "failure" }, reason(failure)));
  }
}

async function readAll() {
  const found = await call("GET", "/studies");
  state.studies = new Map(found.studies.map((study) => [study.id, study]));
  update(state);
}

function onevent(kind, data) {
  if (kind === "reset") readAll().catch(say);
  else if (kind === "progress") updateProgress(state, data);
  else {
    if (kind === "gone") state.studies.delete(data.id);
    else state.studies.set(data.id, data);
    update(state, kind === "gone" ? "" : data.id);
  }
}

function onlink(well, failure) {
  const place = document.getElementById("link");
  place.textContent = well ? t("online") : failure ? why(failure.code) : t("offline");
  place.className = well ? "well" : "ill";
}

async function start() {
  chrome();
  try {
    state.about = await call("GET", "/about");
    await readAll();
  } catch (failure) {
    show(main, h("p", { className: "failure" }, reason(failure)));
    return;
  }
  window.addEventListener("hashchange", route);
  await route();
  document.documentElement.dataset.ready = language;
  follow(onevent, onlink);
}

start();
