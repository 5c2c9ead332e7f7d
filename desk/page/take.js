// What is taken away: files of a result, fetched with the token and given to the browser.

import { blob } from "./api.js";
import { button, h, say } from "./dom.js";
import { size, t } from "./text.js";

export function drawTakeaway(path, one) {
  const chief = [["JSON", `${path}/files/result.json`, "result.json"], ["CSV", `${path}/report.csv`, `${one.name}.csv`],
    ["PDF", `${path}/report.pdf`, `${one.name}.pdf`]];
  return h("section", { id: "takeaway" }, h("h2", { textContent: t("takeaway") }),
    h("div", { className: "chips" }, chief.map(([name, from, as]) => button(name, () => take(from, as), { className: "chip" }))),
    h("details", {}, h("summary", { textContent: `${t("everyfile")} (${one.files.length})` }),
      h("ul", { className: "files" }, one.files.map((file) => h("li", {},
        button(file.name, () => take(`${path}/files/${file.name}`, file.name.replace(/^.*\//, "")), { className: "link" }),
        h("span", { className: "faint", textContent: ` ${size(file.bytes)}` }))))));
}

async function take(path, name) {
  try {
    const url = URL.createObjectURL(await blob(path));
    const link = h("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (failure) {
    say(failure);
  }
}
