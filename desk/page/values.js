// The values of a result as a table, and those of two beside each other.

import { h } from "./dom.js";
import { label, number, said, t } from "./text.js";

const HIDDEN = new Set(["schema", "hilum_version", "system", "mode", "disclaimer", "weights", "weights_note", "key", "name", "files",
  "status", "flags", "slices", "zones", "fractions", "fractions_ungated", "counts", "timings_s", "options", "transport", "preview_note",
  "lesion_table", "normalised_space", "voxels", "surfaces", "decode", "published_branching", "distribution", "features", "notes"]);

function flat(result, prefix = "", deep = 0) {
  const found = new Map();
  for (const [key, value] of Object.entries(result)) {
    if (HIDDEN.has(key) || value === null || value === "") continue;
    const name = `${prefix}${key}`.replaceAll("_", " ");
    if (Array.isArray(value)) {
      if (value.length && value.length <= 8 && value.every((one) => typeof one !== "object")) found.set(name, value.map(text).join(", "));
    } else if (typeof value === "object") {
      if (deep < 2) for (const [inner, one] of flat(value, `${name} · `, deep + 1)) found.set(inner, one);
    } else found.set(name, value);
  }
  return found;
}

function text(value) {
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  return typeof value === "number" ? number(value, Math.abs(value) < 1 ? 4 : 2) : label(String(value));
}

function heading(name) {
  return h("th", { scope: "row", textContent: name.split(" · ").map(label).join(" · ") });
}

function cell(value) {
  return h("td", { className: typeof value === "number" ? "number" : "", textContent: value === undefined ? "–" : text(value) });
}

export function notesList(result) {
  if (!result.notes?.length) return "";
  return h("section", { id: "notes" }, h("h2", { textContent: t("notes") }), h("ul", { className: "notes" }, result.notes.map((note) => h("li", { textContent: said(note) }))));
}

export function valuesTable(result) {
  const rows = [...flat(result)].map(([name, value]) => h("tr", {}, heading(name), cell(value)));
  if (!rows.length) return "";
  return h("section", {}, h("h2", { textContent: t("values") }),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": t("values") }, h("table", { className: "values" }, h("tbody", {}, rows))));
}

export function differences(first, second, link) {
  const [a, b] = [flat(first), flat(second)];
  const rows = [...new Set([...a.keys(), ...b.keys()])].map((name) => {
    const [one, two] = [a.get(name), b.get(name)];
    const change = typeof one === "number" && typeof two === "number" ? two - one : undefined;
    return h("tr", { className: change || (change === undefined && one !== two) ? "differs" : "" },
      heading(name), cell(one), cell(two), change === undefined ? h("td") : cell(change));
  });
  const head = ["first", "second"].map((name, index) => h("th", { scope: "col" },
    h("a", { href: link(index), textContent: `${t(name)} (${[first, second][index].system})` })));
  return h("section", {}, h("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": t("compare") },
    h("table", { className: "values", id: "differences" }, h("thead", {}, h("tr", {}, h("td"), head, h("th", { scope: "col", textContent: t("change") }))), h("tbody", {}, rows))));
}
