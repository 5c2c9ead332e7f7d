// The view of a result: the CT or the X-ray with what was found, values, and what is taken away.

import { blob, call } from "./api.js";
import { CtView, hasWebGL } from "./ct.js";
import { button, h, say, show, warn } from "./dom.js";
import { curvePanel, lesionPanel, maskPanel, viewPanel, windowPanel } from "./panels.js";
import { drawTakeaway } from "./take.js";
import { label, number, size, t } from "./text.js";
import { differences, notesList, valuesTable } from "./values.js";

const HEAT = 0.4;
const QUIET = /^(INPUT|SELECT|TEXTAREA|BUTTON|A|SUMMARY)$/;
let open = null;

export function closeSee() {
  if (!open) return;
  document.removeEventListener("keydown", open.keys, true);
  for (const view of open.views) view.close();
  for (const url of open.urls) URL.revokeObjectURL(url);
  open = null;
}

function begin() {
  open = { views: [], urls: [], keys: () => {} };
  return open;
}

export async function openSee(main, id, chosen) {
  const asked = location.hash;
  const found = await call("GET", `/jobs/${id}/result`);
  if (location.hash !== asked) return; // left meanwhile
  const one = found.studies.find((study) => study.name === chosen) ?? found.studies[0];
  const mine = begin();
  const path = `/jobs/${id}/studies/${one.name}`;
  const { result, scene } = one;
  warn([result.weights_note, result.preview_note]);
  const stage = h("div", { className: "stage" });
  const left = h("aside", { className: "panel", "aria-label": t("views") });
  const right = h("aside", { className: "panel", "aria-label": t("values") });
  const tabs = found.studies.length > 1 && h("nav", { className: "chips", "aria-label": t("studies") },
    found.studies.map((study) => h("a", { className: "chip", href: `#/job/${id}/${study.name}`, textContent: study.name,
      ...(study === one && { "aria-current": "page" }) })));
  show(main,
    h("div", { className: "row" }, h("h1", { textContent: result.system }),
      h("span", { className: "faint", textContent: [result.mode, result.status, ...(result.flags ?? []).slice(1)].map(label).join(", ") }), tabs || ""),
    h("div", { className: `see ${scene?.kind ?? "pictures"}` }, left, stage, right));
  if (scene?.kind === "ct" && hasWebGL()) await seeCt(mine, stage, left, right, path, scene);
  else if (scene?.kind === "xray") await seeXray(mine, stage, left, right, path, result);
  else {
    if (scene?.kind === "ct") show(left, h("p", { textContent: t("nogl") }));
    await seePictures(mine, stage, path, one.files);
  }
  right.append(notesList(result), valuesTable(result), drawTakeaway(path, one));
}

async function seeCt(mine, stage, left, right, path, scene) {
  const canvas = h("canvas", { tabIndex: 0, id: "ct", role: "img" });
  const at = h("output", { className: "at", id: "at" });
  const note = h("output", { className: "note", id: "note" });
  const panes = h("div", { className: "panes" }, h("div", { className: "pane" }, canvas));
  show(stage, panes, h("div", { className: "row under" }, at, h("span", { className: "grow" }), note));
  const controls = {};
  const view = new CtView(canvas, path, scene, {
    location: (found, hu) => {
      at.textContent = placeText(found.mm, hu);
      canvas.ariaLabel = t("canvas", at.textContent);
      controls.curve?.(found.mm);
    },
    window: (window) => controls.window?.(window),
    loading: (name, bytes) => (note.textContent = t("loading", `${t(`volume_${name}`)} ${size(bytes)}`)),
    loaded: (quality) => {
      note.textContent = quality === "half" ? t("half") : "";
      if (controls.full) controls.full.hidden = quality === "full";
      document.documentElement.dataset.quality = quality;
    },
  });
  mine.views.push(view);
  window.hilumView = view;
  await view.start();
  if (view.closed) return;
  const loud = (work) => work().catch(say);
  controls.full = button(t("full"), () => loud(() => full()), { id: "full", hidden: view.quality === "full" });
  const full = async () => {
    if (view.quality === "full") return;
    await view.setQuality("full");
    await mine.views[1]?.setQuality("full");
  };
  const setView = (name) => mine.views.forEach((one) => one.setView(name));
  const views = viewPanel(setView);
  const beside = scene.volumes.enhanced && h("label", { className: "check" },
    h("input", { type: "checkbox", id: "beside", onchange: (event) => loud(() => showBeside(mine, panes, path, scene, event.target.checked)) }), t("beside"));
  const masks = maskPanel(view, scene);
  const windows = windowPanel(view, scene, controls);
  const lesions = lesionPanel(view, scene);
  const surfaces = scene.meshes.length > 0 && h("label", { className: "check" },
    h("input", { type: "checkbox", id: "surfaces", onchange: (event) => loud(() => view.setSurfaces(event.target.checked)) }), t("surfaces"));
  show(left, views.node, windows.node, masks.node,
    h("section", {}, beside || "", surfaces || "", controls.full),
    h("details", {}, h("summary", { textContent: t("keys") }), h("p", { className: "faint", textContent: t("keylist") })));
  show(right, lesions.node, curvePanel(view, scene, controls) ?? "");
  if (scene.lesions) lesions.go(0);
  else view.go(view.place());
  if (scene.volumes.heat) await view.setHeat(HEAT);
  if (view.closed) return;
  mine.keys = (event) => {
    if (QUIET.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      1: () => views.choose("axial"), 2: () => views.choose("coronal"), 3: () => views.choose("sagittal"),
      4: () => views.choose("render"), 5: () => views.choose("multi"), o: () => windows.choose("optimal"),
      l: () => windows.choose("lung"), m: () => windows.choose("mediastinum"), " ": () => masks.toggle(),
      n: () => lesions.next(), f: () => loud(full),
      ArrowUp: () => view.step(views.axis(), 1), ArrowDown: () => view.step(views.axis(), -1),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  document.addEventListener("keydown", mine.keys, true);
  document.documentElement.dataset.shown = "ct";
}

// A place in RAS as the sides of the patient, in mm, and the value there.
function placeText(mm, hu) {
  const sides = ["LR", "PA", "IS"].map((pair, axis) => `${pair[Number(mm[axis] > 0)]} ${number(Math.abs(mm[axis]), 0)}`);
  return `${sides.join("  ")} mm${hu === null ? "" : `  ·  ${hu} ${t("hu")}`}`;
}

async function showBeside(mine, panes, path, scene, on) {
  const [view, old] = mine.views;
  if (old) {
    old.close();
    mine.views.pop();
    panes.lastChild.remove();
    view.linked = null;
  }
  if (!on) return;
  const canvas = h("canvas", { tabIndex: 0, role: "img", ariaLabel: t("beside"), id: "second" });
  panes.append(h("div", { className: "pane" }, canvas));
  const other = new CtView(canvas, path, scene, {});
  other.first = "enhanced";
  other.quality = view.quality;
  mine.views.push(other);
  await other.start();
  if (other.closed) return;
  other.nv.setSliceType(view.nv.opts.sliceType);
  view.link(other);
  view.lead(view.place());
}

async function picture(mine, path, alt) {
  const url = URL.createObjectURL(await blob(path));
  mine.urls.push(url);
  return h("img", { src: url, alt });
}

async function seeXray(mine, stage, left, right, path, result) {
  const [plain, marked] = await Promise.all([
    picture(mine, `${path}/view/plain.png`, t("xray")), picture(mine, `${path}/view/marked.png`, t("marked")),
  ]);
  marked.id = "marked";
  show(stage, h("div", { className: "layers" }, plain, marked));
  show(left, h("section", {},
    h("label", {}, h("span", { textContent: t("marked") }),
      h("input", { type: "range", min: 0, max: 100, value: 100, id: "opacity",
        oninput: (event) => (marked.style.opacity = event.target.value / 100) }))));
  const score = result.score === null ? t("noscore") : t("score", result.score);
  show(right, h("section", {}, h("h2", { id: "score", textContent: score }),
    h("table", {}, h("thead", {}, h("tr", {}, h("th", { textContent: t("zone") }), h("th", { className: "number", textContent: t("share") }))),
      h("tbody", {}, result.zones.map((zone, index) => {
        const share = result.fractions[index];
        const words = zone.split(" ").map((word) => t(word)).join(" "); // the patient's side, not the image's
        return h("tr", { className: share > result.zone_threshold ? "counts" : "" }, h("td", { textContent: words }),
          h("td", { className: "number", textContent: share === null ? "–" : `${number(100 * share, 0)} %` }));
      })))));
  document.documentElement.dataset.shown = "xray";
}

async function seePictures(mine, stage, path, files) {
  const names = files.map((file) => file.name).filter((name) => /^[^/]+\.png$/.test(name));
  show(stage, h("div", { className: "gallery" },
    await Promise.all(names.map((name) => picture(mine, `${path}/files/${name}`, name)))));
  document.documentElement.dataset.shown = "pictures";
}

// Whether two results are of one patient: the same study, or equal marks of the patient's attributes.
function kinship(jobA, a, jobB, b) {
  if (jobA.study === jobB.study && a.name === b.name) return "same";
  if (!a.patient.PatientID || !b.patient.PatientID) return "unknown";
  return Object.entries(a.patient).every(([tag, mark]) => (b.patient[tag] ?? mark) === mark) ? "same" : "other";
}

export async function openCompare(main, first, second) {
  const asked = location.hash;
  const found = await Promise.all([first, second].map((id) => call("GET", `/jobs/${id}/result`)));
  if (location.hash !== asked) return;
  const ones = found.map((job) => job.studies[0]);
  const paths = [first, second].map((id, index) => `/jobs/${id}/studies/${ones[index].name}`);
  const mine = begin();
  warn(ones.flatMap((one) => [one.result.weights_note, one.result.preview_note]));
  const panes = h("div", { className: "panes" });
  const kin = kinship(found[0], ones[0], found[1], ones[1]);
  const views = viewPanel((name) => mine.views.forEach((one) => one.setView(name)));
  const volumes = ones.every((one) => one.scene?.kind === "ct") && hasWebGL();
  show(main, h("div", { className: "row" }, h("h1", { textContent: t("compare") }), volumes ? views.node : ""),
    h("p", { id: "kinship", className: kin === "same" ? "faint" : "failure", textContent: t(`patient_${kin}`), "data-kin": kin }),
    h("div", { className: "stage" }, panes),
    differences(ones[0].result, ones[1].result, (index) => `#/job/${[first, second][index]}`));
  if (volumes) {
    for (const [index, one] of ones.entries()) {
      const canvas = h("canvas", { tabIndex: 0, role: "img", ariaLabel: t(index ? "second" : "first") });
      panes.append(h("div", { className: "pane" }, canvas));
      const view = new CtView(canvas, paths[index], one.scene, {});
      mine.views.push(view);
      await view.start();
      if (view.closed) return;
    }
    mine.views[0].link(mine.views[1]);
  } else {
    for (const [index, one] of ones.entries()) {
      const name = one.scene?.kind === "xray" ? "view/marked.png" : `files/${one.scene?.pictures[0] ?? one.files.find((file) => file.name.endsWith(".png")).name}`;
      panes.append(h("div", { className: "pane" }, await picture(mine, `${paths[index]}/${name}`, t(index ? "second" : "first"))));
    }
  }
  document.documentElement.dataset.shown = "compare";
}
