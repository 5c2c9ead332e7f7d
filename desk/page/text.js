// Every text of the page, in English and German; german.js has those of the catalog and of results.

import { GERMAN } from "./german.js";

const TEXTS = {
  work: ["Work", "Arbeit"],
  skip: ["To the content", "Zum Inhalt"],
  disclaimer: ["Not a medical device. For research only.", "Kein Medizinprodukt. Nur für die Forschung."],
  theme: ["Light or dark", "Hell oder dunkel"],
  online: ["connected", "verbunden"], offline: ["connection lost, trying again", "Verbindung verloren, neuer Versuch"],
  send: ["Send a study", "Studie senden"],
  drop: ["Drop files or a folder here", "Dateien oder einen Ordner hier ablegen"],
  files: ["Choose files", "Dateien wählen"], folder: ["Choose a folder", "Ordner wählen"],
  dropmore: ["DICOM, NIfTI, PNG or JPEG. Names of files are not kept.", "DICOM, NIfTI, PNG oder JPEG. Dateinamen werden nicht gespeichert."],
  chosen: ["files: {0}, {1}", "Dateien: {0}, {1}"],
  toomuch: ["A study has {0} files and {1} at most.", "Eine Studie hat höchstens {0} Dateien und {1}."],
  partial: ["{0} of {1} files arrived. Choose the same files again to send the study.", "{0} von {1} Dateien sind angekommen. Wählen Sie dieselben Dateien noch einmal, um die Studie zu senden."],
  others: ["These are other files: the study has {0}.", "Das sind andere Dateien: Die Studie hat {0}."],
  system: ["System", "System"], options: ["Options", "Optionen"], missing: ["not served", "nicht verfügbar"],
  default: ["default", "Standard"], run: ["Run", "Starten"], again: ["Run another system", "Weiteres System starten"],
  sending: ["Sending {0} of {1}", "Sende {0} von {1}"], stop: ["Stop", "Abbrechen"],
  studies: ["Studies", "Studien"], filter: ["Filter", "Filter"], all: ["all", "alle"],
  none: ["Nothing here yet. Send a study to begin.", "Noch nichts da. Senden Sie eine Studie."],
  nomatch: ["Nothing matches the filter.", "Nichts entspricht dem Filter."],
  study: ["Study {0}", "Studie {0}"], nofiles: ["files removed", "Dateien entfernt"],
  waiting: ["waiting", "wartet"], running: ["running", "läuft"], done: ["done", "fertig"],
  failed: ["failed", "fehlgeschlagen"], cancelled: ["cancelled", "abgebrochen"],
  open: ["Open", "Öffnen"], retry: ["Try again", "Erneut versuchen"], cancel: ["Cancel", "Abbrechen"],
  delete: ["Delete", "Löschen"], sure: ["Delete this study with all its results?", "Diese Studie mit allen Ergebnissen löschen?"],
  compare: ["Compare", "Vergleichen"], comparehint: ["Mark two results to compare", "Zwei Ergebnisse zum Vergleich markieren"],
  mark: ["Mark for comparison", "Zum Vergleich markieren"],
  left: ["about {0} left", "noch etwa {0}"], part: ["study {0} of {1}", "Studie {0} von {1}"], more: ["and {0} more", "und {0} weitere"],
  detail: ["What the program said", "Was das Programm sagt (englisch)"], yes: ["yes", "ja"], no: ["no", "nein"],
  why_error: ["Something failed.", "Etwas ist fehlgeschlagen."],
  why_input: ["The input cannot be used.", "Die Eingabe ist nicht verwendbar."],
  why_unreadable: ["A file is not there or cannot be read. Send the study again.", "Eine Datei fehlt oder ist nicht lesbar. Senden Sie die Studie noch einmal."],
  why_damaged: ["A file is damaged or incomplete. Export or transfer it again, then send it again.", "Eine Datei ist beschädigt oder unvollständig. Exportieren oder übertragen Sie sie neu und senden Sie sie dann noch einmal."],
  why_format: ["The format is not one that this system reads. Export the images as plain DICOM, NIfTI, PNG or JPEG.", "Dieses Format liest das System nicht. Exportieren Sie die Bilder als einfaches DICOM, NIfTI, PNG oder JPEG."],
  why_study: ["This is not the kind of image that the system was made for. Choose another system, or send another study.", "Für solche Bilder ist das System nicht gemacht. Wählen Sie ein anderes System, oder senden Sie eine andere Studie."],
  why_series: ["Which series is meant is not clear, or it is not there. Choose one by the option series.", "Welche Serie gemeint ist, ist unklar, oder es gibt sie nicht. Wählen Sie eine mit der Option Serie."],
  why_geometry: ["Where the slices lie in the patient is unknown or contradictory. Export the whole series again.", "Die Lage der Schichten im Patienten ist unbekannt oder widersprüchlich. Exportieren Sie die ganze Serie neu."],
  why_numbers: ["The published program cannot order these slices. Choose the mode corrected.", "Das veröffentlichte Programm kann diese Schichten nicht ordnen. Wählen Sie den Modus corrected."],
  why_size: ["The study is too large or too small for this system. Send the chest alone, whole.", "Die Studie ist für dieses System zu groß oder zu klein. Senden Sie nur den Thorax, ihn aber ganz."],
  why_lungs: ["No lungs were found, or too little of them. Check that it is a CT of the whole chest in Hounsfield units.", "Es wurde keine oder zu wenig Lunge gefunden. Prüfen Sie, ob es ein CT des ganzen Thorax in Hounsfield-Einheiten ist."],
  why_option: ["An option cannot be as it is. Choose another value.", "Eine Option kann so nicht sein. Wählen Sie einen anderen Wert."],
  why_library: ["A part of the program is not installed. Ask whoever runs the desk.", "Ein Teil des Programms ist nicht installiert. Fragen Sie, wer diese Seite betreibt."],
  why_meshes: ["Surfaces cannot be made here: a library is missing. Run without the option meshes.", "Oberflächen lassen sich hier nicht erstellen: Eine Bibliothek fehlt. Starten Sie ohne die Option Oberflächen."],
  why_source: ["The study could not be fetched. Try again later.", "Die Studie ließ sich nicht holen. Versuchen Sie es später erneut."],
  why_memory: ["The memory is used up. Try again when less is running.", "Der Arbeitsspeicher ist voll. Versuchen Sie es erneut, wenn weniger läuft."],
  why_connection: ["No answer came over the network. Try again; if it stays so, ask whoever runs the desk.", "Über das Netz kam keine Antwort. Versuchen Sie es erneut; bleibt es dabei, fragen Sie, wer diese Seite betreibt."],
  why_server: ["The server of the networks is not running as it must. Ask whoever runs it.", "Der Server der Netze läuft nicht, wie er soll. Fragen Sie, wer ihn betreibt."],
  why_inference: ["The server could not compute this. Try again; if it stays so, ask whoever runs it.", "Der Server konnte dies nicht berechnen. Versuchen Sie es erneut; bleibt es dabei, fragen Sie, wer ihn betreibt."],
  why_deadline: ["The server took too long. Try again when less is running.", "Der Server brauchte zu lange. Versuchen Sie es erneut, wenn weniger läuft."],
  why_repository: ["The server's networks are incomplete. Ask whoever runs it.", "Die Netze des Servers sind unvollständig. Fragen Sie, wer ihn betreibt."],
  why_weights: ["The weights of a network are not what it needs. Ask whoever runs the server.", "Die Gewichte passen nicht zu einem Netz. Fragen Sie, wer den Server betreibt."],
  "why_other-weights": ["The servers have different weights. Ask whoever runs them.", "Die Server haben verschiedene Gewichte. Fragen Sie, wer sie betreibt."],
  why_export: ["A network could not be prepared. Ask whoever runs the server.", "Ein Netz ließ sich nicht vorbereiten. Fragen Sie, wer den Server betreibt."],
  why_catalog: ["The program contradicts itself. Ask whoever runs the desk.", "Das Programm widerspricht sich. Fragen Sie, wer diese Seite betreibt."],
  why_disk: ["The result could not be written: the disk is full, or may not be written. Ask whoever runs the desk.", "Das Ergebnis ließ sich nicht schreiben: Der Speicher ist voll oder gesperrt. Fragen Sie, wer diese Seite betreibt."],
  why_pacs: ["The PACS did not answer as it must. Ask whoever runs it.", "Das PACS hat nicht geantwortet, wie es soll. Fragen Sie, wer es betreibt."],
  why_order: ["It waits for another job.", "Es wartet auf einen anderen Auftrag."],
  why_crash: ["The program ended several times while it ran. Try again once; then ask whoever runs the desk.", "Das Programm endete mehrmals während der Berechnung. Versuchen Sie es noch einmal; fragen Sie dann, wer diese Seite betreibt."],
  why_fault: ["A fault of the program. Try again; if it stays so, report it with the line below.", "Ein Fehler des Programms. Versuchen Sie es erneut; bleibt es dabei, melden Sie ihn mit der Zeile darunter."],
  why_empty: ["There is nothing in what was sent. Export it again.", "Das Gesendete ist leer. Exportieren Sie es neu."],
  why_token: ["Open the link that hilum desk printed: it holds the token.", "Öffnen Sie den Link, den hilum desk ausgegeben hat: Er enthält den Schlüssel."],
  why_gateway: ["These studies belong to a gateway: they can only be seen.", "Diese Studien gehören zu einem Gateway: Sie lassen sich nur ansehen."],
  why_none: ["This is not there any more.", "Das gibt es nicht mehr."],
  why_slow: ["The file stopped coming. Send it again.", "Die Datei kam nicht weiter. Senden Sie sie noch einmal."],
  why_state: ["This cannot be done now: the job is over, at work, or files are missing.", "Das geht jetzt nicht: Der Auftrag ist beendet oder läuft, oder es fehlen Dateien."],
  why_gone: ["The files of this study were removed. Send it again.", "Die Dateien dieser Studie wurden entfernt. Senden Sie sie noch einmal."],
  why_large: ["A file or the study is too large. Send the chest alone.", "Eine Datei oder die Studie ist zu groß. Senden Sie nur den Thorax."],
  why_archive: ["Archives are not taken. Unpack it, and send the files.", "Archive werden nicht angenommen. Entpacken Sie es, und senden Sie die Dateien."],
  why_many: ["Too much waits already. Run or delete some studies first.", "Es wartet schon zu viel. Starten oder löschen Sie erst einige Studien."],
  why_room: ["The disk of the desk is full. Delete studies, or ask whoever runs it.", "Der Speicher dieser Seite ist voll. Löschen Sie Studien, oder fragen Sie, wer sie betreibt."],
  views: ["View", "Ansicht"], multi: ["All", "Alle"], axial: ["Axial", "Axial"], coronal: ["Coronal", "Koronal"],
  sagittal: ["Sagittal", "Sagittal"], render: ["3-D", "3-D"],
  window: ["Window", "Fenster"], optimal: ["Scan-optimal", "Scan-optimal"], lung: ["Lung", "Lunge"],
  mediastinum: ["Mediastinum", "Mediastinum"], level: ["Level HU", "Mitte HE"], width: ["Width HU", "Breite HE"],
  windowhint: ["Or drag with the right mouse button.", "Oder mit der rechten Maustaste ziehen."],
  masks: ["Masks", "Masken"], showmasks: ["Show masks", "Masken zeigen"], opacity: ["Opacity", "Deckkraft"],
  heat: ["Heat map", "Wärmebild"], surfaces: ["Surfaces", "Oberflächen"],
  beside: ["Enhanced beside it", "Verstärktes daneben"], full: ["Full resolution", "Volle Auflösung"],
  half: ["Half resolution is shown.", "Halbe Auflösung wird gezeigt."],
  loading: ["Loading {0}", "Lade {0}"], nogl: ["This browser has no WebGL 2: pictures only.", "Dieser Browser hat kein WebGL 2: nur Bilder."],
  volume_ct: ["CT", "CT"], volume_masks: ["masks", "Masken"], volume_enhanced: ["enhanced volume", "verstärktes Volumen"], volume_heat: ["heat maps", "Wärmebilder"], hu: ["HU", "HE"],
  lesions: ["Lesions", "Läsionen"], curve: ["Slice by slice", "Schicht für Schicht"],
  probability: ["probability", "Wahrscheinlichkeit"], boxes: ["boxes", "Kästen"],
  slice: ["Slice", "Schicht"], sliceof: ["Slice {0} of {1} from the head: {2}", "Schicht {0} von {1} vom Kopf: {2}"],
  values: ["Values", "Werte"], notes: ["What is unusual", "Auffälligkeiten"], takeaway: ["Take away", "Mitnehmen"], everyfile: ["All files", "Alle Dateien"],
  marked: ["Marks", "Markierung"], zone: ["Zone of the patient", "Zone des Patienten"],
  "image-left": ["right", "rechts"], "image-right": ["left", "links"], lower: ["lower", "unten"], middle: ["middle", "mittig"], upper: ["upper", "oben"], share: ["Share", "Anteil"],
  score: ["Severity {0} of 6", "Schweregrad {0} von 6"], noscore: ["No score", "Kein Wert"],
  patient_same: ["Both results are of one patient.", "Beide Ergebnisse sind von einem Patienten."],
  patient_other: ["These results are of two different patients.", "Diese Ergebnisse sind von zwei verschiedenen Patienten."],
  patient_unknown: ["The results do not say whether they are of one patient.", "Die Ergebnisse sagen nicht, ob sie von einem Patienten sind."],
  keys: ["Keys", "Tasten"], first: ["First", "Erstes"], second: ["Second", "Zweites"], change: ["Difference", "Differenz"],
  keylist: ["1 axial · 2 coronal · 3 sagittal · 4 3-D · 5 all · O optimal · L lung · M mediastinum · Space masks · N next lesion · ↑ ↓ slices · F full resolution",
            "1 axial · 2 koronal · 3 sagittal · 4 3-D · 5 alle · O optimal · L Lunge · M Mediastinum · Leertaste Masken · N nächste Läsion · ↑ ↓ Schichten · F volle Auflösung"],
  canvas: ["CT with masks. {0}", "CT mit Masken. {0}"], xray: ["X-ray", "Röntgenbild"],
  "layer_lung": ["lungs", "Lunge"], "layer_lung-right": ["right lung", "rechte Lunge"], "layer_lung-left": ["left lung", "linke Lunge"],
  layer_airway: ["airways", "Atemwege"], layer_vessel: ["vessels", "Gefäße"], layer_heart: ["heart", "Herz"],
  layer_artery: ["arteries", "Arterien"], layer_vein: ["veins", "Venen"], layer_visible: ["visible lesions", "sichtbare Läsionen"],
  "layer_follow-up": ["lesions (follow-up)", "Läsionen (Nachsorge)"], "layer_in-patient": ["lesions (in-patients)", "Läsionen (stationär)"],
  layer_lesion: ["lesions", "Läsionen"], layer_boxes: ["boxes", "Kästen"],
  col_lesion_id: ["no.", "Nr."], col_volume_ml: ["ml", "ml"], col_side: ["side", "Seite"], col_zone: ["zone", "Zone"],
  col_axial_diameter_mm: ["mm", "mm"], col_mean_severity_hu: ["mean HU", "Mittel HE"], col_slice: ["slice", "Schicht"],
  col_quadrants: ["quadrants", "Quadranten"], col_mask_area: ["pixels", "Pixel"], col_max_probability: ["p", "p"],
};

const LANGUAGES = ["en", "de"];
const asked = localStorage.getItem("language") ?? navigator.language.slice(0, 2);
export const language = LANGUAGES.includes(asked) ? asked : "en";
document.documentElement.lang = language;

export const other = LANGUAGES[1 - LANGUAGES.indexOf(language)];
export function choose(name) {
  localStorage.setItem("language", name);
  location.reload();
}

export function t(key, ...values) {
  const text = TEXTS[key]?.[LANGUAGES.indexOf(language)] ?? key.replace(/^(layer|col|volume)_/, "").replaceAll("_", " ");
  return text.replace(/\{(\d)\}/g, (_, n) => values[n]);
}

// Why something failed, in a sentence with what to do; a code of a later version has the general one.
export function why(code) {
  return t(`why_${code}` in TEXTS ? `why_${code}` : "why_error");
}

const NUMBER = "[-−]?\\d+(?:[.,]\\d+)?%?";
const NUMBERS = new RegExp(NUMBER, "g");
const shaped = (text) => text.replaceAll("_", " ").replace(NUMBERS, "#");
const WORDS = Object.fromEntries(Object.entries(GERMAN).map(([text, german]) => [shaped(text), german]));
const OPEN = Object.entries(WORDS).filter(([text]) => text.includes("*")).map(([text, german]) => {
  const form = text.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "(.+?)").replaceAll("#", `(${NUMBER})`);
  return { form: new RegExp(`^${form}$`), kinds: text.match(/[*#]/g), german };
});

// The numbers of a text in those places of the German one, whose points are commas.
function filled(german, numbers) {
  const left = [...numbers];
  return german.replace(NUMBERS, "#").replace(/#/g, () => (left.shift() ?? "").replace(".", ",").replace("%", " %"));
}

// The German of a text: as a whole, with its parts looked up, or as a list of texts; null where there is none.
function german(text) {
  if (Object.hasOwn(GERMAN, text) && !/[*#]/.test(text)) return GERMAN[text];
  const [whole, numbers] = [shaped(text), text.match(NUMBERS) ?? []];
  if (Object.hasOwn(WORDS, whole)) return filled(WORDS[whole], numbers);
  if (!/\p{L}/u.test(text)) return filled(whole, numbers);
  for (const { form, kinds, german: answer } of OPEN) {
    const found = form.exec(text);
    if (!found) continue;
    const parts = (kind) => found.slice(1).filter((_, index) => kinds[index] === kind);
    const words = parts("*");
    return filled(answer, parts("#")).replace(/\*/g, () => said(words.shift()));
  }
  for (const between of ["; ", ", "]) {
    if (text.includes(between)) return text.split(between).map(said).join(between);
  }
  const [, word, number] = new RegExp(`^(.+) (${NUMBER})$`).exec(text) ?? [];
  return word ? `${said(word)} ${said(number)}` : null;
}

// A text of the catalog or of a result in the language of the page.
export function said(text) {
  return (language === "de" && german(text)) || text;
}

// A word of a result: names have lines below, which nobody reads.
export function label(text) {
  return said(text).replaceAll("_", " ");
}

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (bytes >= 1000 && at < 3) {
    bytes /= 1000;
    at += 1;
  }
  return `${number(bytes, at && bytes < 100 ? 1 : 0)} ${units[at]}`;
}

export function number(value, digits = 2) {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(language, { dateStyle: "short", timeStyle: "short" });
}
