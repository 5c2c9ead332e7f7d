// Sends the files of a study, several at once, each by its number.

import { put, Refused } from "./api.js";

const AT_ONCE = 4;
const TRIES = 3;

export async function sendFiles(id, files, onsent, abort) {
  const sent = new Array(files.length).fill(0);
  let next = 0;
  const lane = async () => {
    while (next < files.length && !abort.signal.aborted) {
      const index = next++;
      for (let attempt = 1; ; attempt += 1) {
        try {
          await put(`/studies/${id}/files/${index + 1}`, files[index], (size) => {
            sent[index] = size;
            onsent(sent.reduce((a, b) => a + b, 0));
          }, abort.signal);
          break;
        } catch (failure) {
          // A connection that breaks, or a proxy that has no answer, is tried again; a refusal is final.
          if (failure.code !== "connection" || attempt === TRIES) {
            abort.abort();
            throw failure;
          }
          await new Promise((again) => setTimeout(again, 500 * attempt));
        }
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: AT_ONCE }, lane));
  const failed = ends.filter((end) => end.status === "rejected").map((end) => end.reason);
  const first = failed.find((reason) => reason.code !== "aborted") ?? failed[0];
  if (first) throw first;
  if (abort.signal.aborted) throw new Refused(0, "aborted");
}

// The files of what was dropped, folders with all that is below them.
export async function fromDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) files.push(await new Promise((done, failed) => entry.file(done, failed)));
    else {
      const reader = entry.createReader();
      for (;;) {
        const more = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!more.length) break;
        entries.push(...more);
      }
    }
  }
  return files;
}
