// The panels beside the CT: views, windows, masks, lesions, curve.

import { WINDOWS } from "./ct.js";
import { button, h, svg } from "./dom.js";
import { label, number, t } from "./text.js";

const VIEWS = ["axial", "coronal", "sagittal", "render", "multi"];
const AXES = { axial: 2, coronal: 1, sagittal: 0, render: 2, multi: 2 };

function group(names, title, onchoose, chosen) {
  const buttons = names.map((name) => button(t(name), () => choose(name), { className: "chip", id: `view-${name}`, "aria-pressed": name === chosen }));
  let current = chosen;
  const choose = (name) => {
    if (!names.includes(name)) return;
    current = name;
    buttons.forEach((one, index) => one.setAttribute("aria-pressed", names[index] === name));
    onchoose(name);
  };
  return { node: h("div", { className: "chips", role: "group", "aria-label": title }, buttons), choose, current: () => current, buttons };
}

export function viewPanel(setView) {
  const made = group(VIEWS, t("views"), setView, "multi");
  return { node: h("section", {}, h("h2", { textContent: t("views") }), made.node), choose: made.choose, axis: () => AXES[made.current()] };
}

export function windowPanel(view, scene, controls) {
  const known = { ...(scene.windows.optimal && { optimal: scene.windows.optimal }), ...WINDOWS };
  const made = group(Object.keys(known), t("window"), (name) => view.setWindow(known[name]), scene.windows.optimal ? "optimal" : "lung");
  const fields = ["level", "width"].map((name) => h("input", { type: "number", id: `window-${name}`, step: 10, value: view.window[name],
    ...(name === "width" && { min: 1 }),
    onchange: (event) => Number.isFinite(event.target.valueAsNumber) && view.setWindow({ ...view.window, [name]: Math.max(name === "width" ? 1 : -Infinity, event.target.valueAsNumber) }) }));
  controls.window = (window) => {
    ["level", "width"].forEach((name, index) => (fields[index].value = Math.round(window[name])));
    made.buttons.forEach((one, index) => {
      const own = Object.values(known)[index];
      one.setAttribute("aria-pressed", own.level === window.level && own.width === window.width);
    });
  };
  const node = h("section", {}, h("h2", { textContent: t("window") }), made.node,
    h("div", { className: "row" }, ["level", "width"].map((name, index) => h("label", { className: "small" }, h("span", { textContent: t(name) }), fields[index]))),
    h("p", { className: "faint", textContent: t("windowhint") }));
  return { node, choose: made.choose };
}

export function maskPanel(view, scene) {
  const { layers } = scene;
  const boxes = layers.map((layer) => h("input", { type: "checkbox", checked: true, id: `layer-${layer.name}`,
    onchange: (event) => view.setLayer(layer.bit, event.target.checked) }));
  const all = h("input", { type: "checkbox", checked: true, id: "masks", onchange: (event) => toggle(event.target.checked) });
  const toggle = (on = !all.checked) => {
    all.checked = on;
    boxes.forEach((box) => (box.checked = on));
    view.setAll(on);
  };
  const slider = (name, id, value, change) => h("label", {}, h("span", { textContent: t(name) }),
    h("input", { type: "range", min: 0, max: 100, value, id, onchange: (event) => change(event.target.value / 100) }));
  const node = h("section", {}, h("h2", { textContent: t("masks") }),
    layers.length > 0 && h("label", { className: "check" }, all, t("showmasks")),
    layers.map((layer, index) => {
      const dot = h("span", { className: "dot" });
      dot.style.background = `rgb(${layer.colour.join(",")})`;
      return h("label", { className: "check inner" }, boxes[index], dot, t(`layer_${layer.name}`));
    }),
    layers.length > 0 && slider("opacity", "opacity", 50, (value) => view.setOpacity(value)),
    scene.volumes.heat && slider("heat", "heat", 40, (value) => view.setHeat(value)));
  return { node, toggle: () => layers.length && toggle() };
}

export function lesionPanel(view, scene) {
  const found = scene.lesions;
  if (!found) return { node: "", go: () => {}, next: () => {} };
  let current = 0;
  const rows = found.rows.map((row, index) => {
    const cells = row.cells.map((cell, column) => {
      const text = typeof cell === "number" ? number(cell) : cell.split(", ").map(label).join(", ");
      return h("td", { className: typeof cell === "number" ? "number" : "" }, column ? text : button(text, () => go(index), { className: "link", "data-lesion": index }));
    });
    return h("tr", { onclick: () => go(index) }, cells);
  });
  const go = (index) => {
    current = index;
    rows.forEach((row, at) => row.classList.toggle("current", at === index));
    view.go(found.rows[index].ras);
    rows[index].scrollIntoView({ block: "nearest" });
  };
  const head = found.columns.map((column) => h("th", { scope: "col", textContent: t(`col_${column}`) }));
  const node = h("section", {}, h("h2", { textContent: `${t("lesions")} (${found.rows.length})` }),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": t("lesions") },
      h("table", { id: "lesions" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))));
  return { node, go, next: () => go((current + 1) % rows.length) };
}

export function curvePanel(view, scene, controls) {
  const found = scene.curve;
  if (!found) return null;
  const [width, height] = [300, 90];
  const { values, ras } = found;
  const top = Math.max(1, ...values);
  const x = (index) => ((index + 0.5) / values.length) * width;
  const y = (value) => height - 4 - (value / top) * (height - 8);
  const here = svg("line", { y1: 0, y2: height, class: "here" });
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", "aria-hidden": "true", id: "curve",
    onclick: (event) => {
      const box = plot.getBoundingClientRect();
      go(Math.floor(((event.clientX - box.left) / box.width) * values.length));
    } },
    svg("polyline", { points: values.map((value, index) => `${x(index)},${y(value)}`).join(" ") }), here);
  if (found.threshold !== null) plot.append(svg("line", { x1: 0, x2: width, y1: y(found.threshold), y2: y(found.threshold), class: "threshold" }));
  const said = h("output", { className: "faint" });
  const slider = h("input", { type: "range", min: 0, max: values.length - 1, ariaLabel: t("slice"), id: "slice", oninput: (event) => go(Number(event.target.value)) });
  const mark = (index) => {
    const value = found.kind === "boxes" ? `${values[index]} ${t("boxes")}` : `${t(found.kind)} ${number(values[index], 3)}`;
    here.setAttribute("x1", x(index));
    here.setAttribute("x2", x(index));
    slider.value = index;
    said.textContent = t("sliceof", values.length - index, values.length, value);
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  const go = (index) => {
    const [right, front] = view.place();
    view.go([right, front, ras[index][2]]);
  };
  controls.curve = (mm) => {
    let best = 0;
    ras.forEach((place, index) => {
      if (Math.abs(place[2] - mm[2]) < Math.abs(ras[best][2] - mm[2])) best = index;
    });
    mark(best);
  };
  mark(0);
  return h("section", {}, h("h2", { textContent: t("curve") }), plot, slider, said);
}
