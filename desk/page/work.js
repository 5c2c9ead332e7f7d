// The view of the work: send studies, choose what is run on them, and watch.

import { call, Refused } from "./api.js";
import { button, h, reason, say, show } from "./dom.js";
import { sendFiles, fromDrop } from "./send.js";
import { duration, label, moment, number, said, size, t } from "./text.js";

const FILTERS = ["all", "waiting", "running", "done", "failed"];
const ROWS = 6;
let list = null;
let filter = "all";
const marked = new Set();
const sendings = new Map();

export function drawWork(main, state) {
  list = h("ul", { className: "studies" });
  const chips = FILTERS.map((name) =>
    button(t(name), () => {
      filter = name;
      for (const chip of chips) chip.setAttribute("aria-pressed", chip.dataset.name === name);
      update(state);
    }, { "aria-pressed": name === filter, className: "chip", "data-name": name }));
  show(main,
    h("h1", { className: "hidden", textContent: t("work") }),
    state.about.works && sendPanel(state),
    h("section", { "aria-labelledby": "studies" },
      h("div", { className: "row" },
        h("h2", { id: "studies", textContent: t("studies") }),
        h("div", { className: "chips", role: "group", "aria-label": t("filter") }, chips),
        h("span", { className: "grow" }),
        button(t("compare"), compare, { id: "compare", disabled: true, title: t("comparehint") })),
      list));
  update(state);
}

// A field for files that is pressed through a button; forgets them, so that the same can be chosen again.
function chooser(name, ontake, more) {
  return h("input", { type: "file", className: "hidden", tabIndex: -1, ariaLabel: t(name), ...more, onchange: (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    if (files.length) ontake(files);
  } });
}

function sendPanel(state) {
  const take = (files) => files.length && sendStudy(state, files);
  const files = chooser("files", take, { multiple: true, id: "files" });
  const folder = chooser("folder", take, { webkitdirectory: true, id: "folder" });
  const over = (event) => {
    event.preventDefault();
    panel.classList.toggle("over", event.type === "dragover");
  };
  const panel = h("section", { className: "drop", "aria-label": t("send"), ondragover: over, ondragleave: over,
    ondrop: async (event) => {
      over(event);
      take(await fromDrop(event.dataTransfer));
    } },
    h("p", { className: "big", textContent: t("drop") }),
    h("p", { className: "faint", textContent: t("dropmore") }),
    h("div", { className: "row centre" }, files, folder,
      button(t("files"), () => files.click(), { className: "primary" }),
      button(t("folder"), () => folder.click())));
  return panel;
}

// Sends a study, or again one that came in part: each file by its number, so nothing is there twice.
// What is empty or hidden is of no study: folders of every system hold some.
async function sendStudy(state, chosen, known = null) {
  const files = chosen.filter((file) => file.size && !file.name.startsWith("."));
  if (!files.length) return say(new Refused(0, "empty"));
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const { limits } = state.about;
  if (files.length > limits.files || total > limits.study_bytes) {
    return say(t("toomuch", number(limits.files), size(limits.study_bytes)));
  }
  if (known && files.length !== known.expected) return say(t("others", known.expected));
  let id = known?.id;
  try {
    if (!known) ({ id } = await call("POST", "/studies", { files: files.length }));
    const abort = new AbortController();
    const sending = { sent: 0, total, abort, files: files.length };
    sendings.set(id, sending);
    update(state);
    await sendFiles(id, files, (sent) => {
      sending.sent = sent;
      showSending(id);
    }, abort);
  } catch (failure) {
    if (id && !known) call("DELETE", `/studies/${id}`).catch(() => {});
    if (failure.code !== "aborted") say(failure);
  } finally {
    sendings.delete(id);
    const found = await call("GET", "/studies").catch(() => null);
    for (const study of found?.studies ?? []) if (study.id === id) state.studies.set(id, study);
    update(state);
  }
}

window.addEventListener("beforeunload", (event) => {
  if (sendings.size) event.preventDefault();
});

// Draws the list again, or one study of it: what somebody chooses in another is left alone, and
// what somebody reads stays open.
export function update(state, id = "") {
  if (!list?.isConnected) return;
  const details = () => [...list.querySelectorAll(".job")].flatMap((job) =>
    [...job.querySelectorAll("details")].map((one, k) => [`${job.id} ${k}`, one]));
  const open = new Set(details().filter(([, one]) => one.open).map(([key]) => key));
  draw(state, id);
  for (const [key, one] of details()) one.open = open.has(key);
}

function draw(state, id) {
  const old = document.getElementById(`study-${id}`);
  const study = state.studies.get(id);
  if (old && study && filter === "all") {
    old.replaceWith(drawStudy(state, study, old.querySelector("form[data-study]")));
    return markedChanged();
  }
  const kept = new Map([...list.querySelectorAll("form[data-study]")].map((form) => [form.dataset.study, form]));
  const studies = [...state.studies.values()].sort((a, b) => b.created - a.created);
  const shown = studies.filter((study) => filter === "all" || study.jobs.some((job) => job.state === filter));
  const known = new Set(studies.flatMap((study) => study.jobs.filter((job) => job.state === "done").map((job) => job.id)));
  for (const id of marked) if (!known.has(id)) marked.delete(id);
  show(list, shown.map((study) => drawStudy(state, study, kept.get(study.id))));
  if (!shown.length) show(list, h("li", { className: "empty", textContent: t(studies.length ? "nomatch" : "none") }));
  markedChanged();
}

function drawStudy(state, study, form) {
  const sending = sendings.get(study.id);
  const partial = study.there && !sending && study.expected > study.files;
  const free = study.there && !sending && !partial && state.about.works && state.about.systems.length > 0;
  const what = study.there ? t("chosen", study.files, size(study.bytes)) : t("nofiles");
  return h("li", { className: "study", id: `study-${study.id}` },
    h("div", { className: "row" },
      h("h3", { textContent: t("study", study.id.slice(0, 6)) }),
      h("span", { className: "faint", textContent: `${moment(study.created)} · ${sending ? t("chosen", sending.files, size(sending.total)) : what}` }),
      h("span", { className: "grow" }),
      state.about.works && !sending && button(t("delete"), () => remove(study), { className: "quiet" })),
    sending && drawSending(study.id, sending),
    partial && drawPartial(state, study),
    study.jobs.map((job) => drawJob(state, study, job)),
    free && (study.jobs.length
      ? h("details", { open: Boolean(form?.closest("details")?.open) }, h("summary", { textContent: t("again") }), form ?? runForm(state, study))
      : (form ?? runForm(state, study))));
}

function drawPartial(state, study) {
  const take = (files) => sendStudy(state, files, study);
  const [files, folder] = [chooser("files", take, { multiple: true }), chooser("folder", take, { webkitdirectory: true })];
  return h("div", { className: "row partial" },
    h("span", { className: "failure", textContent: t("partial", number(study.files), number(study.expected)) }),
    state.about.works && [files, folder, button(t("files"), () => files.click()), button(t("folder"), () => folder.click())]);
}

function drawSending(id, sending) {
  return h("div", { className: "row", id: `sending-${id}` },
    h("progress", { max: sending.total, value: sending.sent, ariaLabel: t("sending", "", "") }),
    h("span", { textContent: t("sending", size(sending.sent), size(sending.total)) }),
    button(t("stop"), () => sending.abort.abort(), { className: "quiet" }));
}

function showSending(id) {
  const place = document.getElementById(`sending-${id}`);
  const sending = sendings.get(id);
  if (!place || !sending) return;
  place.firstChild.value = sending.sent;
  place.children[1].textContent = t("sending", size(sending.sent), size(sending.total));
}

function drawJob(state, study, job) {
  const act = (name) => () => call("POST", `/jobs/${job.id}/${name}`).catch(say);
  const rows = job.summary?.studies ?? [];
  const shown = [...rows.filter((row) => row.error), ...rows.filter((row) => !row.error)].slice(0, ROWS); // failures first
  return h("div", { className: `job ${job.state}`, id: `job-${job.id}` },
    h("div", { className: "row" },
      h("span", { className: "badge", textContent: t(job.state) }),
      h("strong", { textContent: job.system }),
      h("span", { className: "faint", textContent: optionsText(job.options) }),
      h("span", { className: "grow" }),
      job.state === "done" && h("label", { className: "mark" },
        h("input", { type: "checkbox", checked: marked.has(job.id), ariaLabel: t("mark"),
          onchange: (event) => { marked[event.target.checked ? "add" : "delete"](job.id); markedChanged(); } }), t("compare")),
      job.state === "done" && h("a", { className: "button primary", href: `#/job/${job.id}`, textContent: t("open") }),
      ["failed", "cancelled"].includes(job.state) && study.there && state.about.works && button(t("retry"), act("retry")),
      ["waiting", "running"].includes(job.state) && state.about.works && button(t("cancel"), act("cancel"))),
    job.state === "running" && drawProgress(job),
    job.state === "failed" && h("div", { className: "failure" }, reason({ code: job.code || job.kind, message: job.reason })),
    shown.map((row) => h("div", { className: "summary" },
      rows.length > 1 && h("span", { className: "faint", textContent: t("part", Number(row.name), rows.length) }),
      row.error ? h("div", { className: "failure" }, reason({ code: row.code, message: row.error }))
        : Object.entries(row.row).map(([name, value]) => h("span", {}, h("span", { className: "faint", textContent: `${label(name)} ` }), label(value))))),
    rows.length > shown.length && h("p", { className: "faint", textContent: t("more", rows.length - shown.length) }));
}

function optionsText(options) {
  return Object.entries(options).map(([name, value]) => `${label(name)} ${optionText(value)}`).join(", ");
}

// Choices keep their names, by which help texts and programs know them.
function optionText(value) {
  return typeof value === "boolean" ? t(value ? "yes" : "no") : String(value ?? t("default"));
}

function drawProgress(job) {
  const found = job.progress;
  return h("div", { className: "row", id: `progress-${job.id}` },
    h("progress", { max: found?.total ?? 1, ...(found && { value: found.done }), ariaLabel: t("running") }),
    h("span", { textContent: progressText(found) }));
}

function progressText(found) {
  if (!found) return "";
  const parts = [`${label(found.stage)} ${found.done}/${found.total}`];
  if (found.studies > 1) parts.unshift(t("part", found.study, found.studies));
  if (found.left_s !== null) parts.push(t("left", duration(found.left_s)));
  return parts.join(" · ");
}

export function updateProgress(state, found) {
  for (const study of state.studies.values()) {
    const job = study.jobs.find((one) => one.id === found.job);
    if (job) job.progress = found;
  }
  const place = document.getElementById(`progress-${found.job}`);
  if (!place) return;
  place.firstChild.max = found.total;
  place.firstChild.value = found.done;
  place.lastChild.textContent = progressText(found);
}

function runForm(state, study) {
  const systems = state.about.systems;
  const first = systems.find((system) => !system.missing.length) ?? systems[0];
  const pick = h("select", { name: "system", onchange: () => draw() },
    systems.map((system) => h("option", { value: system.name, selected: system === first, disabled: system.missing.length > 0,
      textContent: `${said(system.title)} (${said(system.study)})${system.missing.length ? ` – ${t("missing")}` : ""}` })));
  const about = h("p", { className: "faint" });
  const fields = h("div", { className: "fields" });
  const form = h("form", { className: "run", "data-study": study.id, onsubmit: async (event) => {
    event.preventDefault();
    const system = systems.find((one) => one.name === pick.value);
    try {
      await call("POST", `/studies/${study.id}/run`, { system: system.name, options: chosen(system, fields) });
      form.closest("details")?.removeAttribute("open");
    } catch (failure) {
      say(failure);
    }
  } },
    h("div", { className: "row" }, h("label", {}, h("span", { textContent: t("system") }), pick),
      h("button", { type: "submit", className: "primary", textContent: t("run") })),
    about, h("details", {}, h("summary", { textContent: t("options") }), fields));
  const draw = () => {
    const system = systems.find((one) => one.name === pick.value);
    about.textContent = `${said(system.summary)}. ${system.paper}`;
    show(fields, system.options.map((option) => drawOption(study, option)));
  };
  draw();
  return form;
}

function drawOption(study, option) {
  const id = `${study.id}-${option.name}`;
  let input;
  const value = option.default ?? "";
  if (option.kind === "boolean" || option.choices.length) {
    const choices = [...(option.optional ? [""] : []), ...(option.choices.length ? option.choices : [true, false])];
    input = h("select", {}, choices.map((one) => h("option", { value: one, selected: String(value) === String(one), textContent: one === "" ? t("default") : optionText(one) })));
  } else {
    const numeric = option.kind !== "string";
    input = h("input", { type: numeric ? "number" : "text", value, ...(numeric && { step: option.kind === "integer" ? 1 : "any" }), placeholder: t("default") });
  }
  input.id = id;
  input.name = option.name;
  input.setAttribute("aria-describedby", `${id}-help`);
  return h("div", {}, h("label", { htmlFor: id, textContent: label(option.name) }), input,
    h("p", { id: `${id}-help`, className: "faint", textContent: said(option.help) }));
}

// Only what differs from the default is sent; a default that is not served was replaced by another.
function chosen(system, fields) {
  const found = {};
  for (const option of system.options) {
    const text = fields.querySelector(`[name="${option.name}"]`).value;
    if (text === String(option.default ?? "") && !option.sent) continue;
    if (text === "") found[option.name] = option.optional ? null : option.default;
    else if (option.kind === "boolean") found[option.name] = text === "true";
    else found[option.name] = option.kind === "string" ? text : Number(text);
  }
  return found;
}

async function remove(study) {
  if (!confirm(t("sure"))) return;
  await call("DELETE", `/studies/${study.id}`).catch(say);
}

function markedChanged() {
  const place = document.getElementById("compare");
  if (place) place.disabled = marked.size !== 2;
}

function compare() {
  location.hash = `#/compare/${[...marked].join("/")}`;
}
