// The interface of the desk. The token comes with the link, after its #, and stays in this tab.

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", "/#/");
}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { authorization: `Bearer ${token}`, ...more } : more;
}

export class Refused extends Error {
  constructor(status, code, text = "") {
    super(text);
    this.status = status;
    this.code = code;
  }

  // What an answer says; one that is not of the desk itself is a proxy's.
  static of(status, text, body) {
    try {
      const { error, code } = JSON.parse(body);
      if (code) return new Refused(status, code, error);
    } catch {
      // no JSON
    }
    return new Refused(status, status === 401 ? "token" : status === 413 ? "large" : "connection", `${status} ${text}`);
  }
}

async function ask(path, asked = {}) {
  const response = await fetch(`/api${path}`, { ...asked, headers: headers(asked.headers) }).catch((failure) => {
    throw new Refused(0, "connection", failure.message);
  });
  if (response.ok) return response;
  throw Refused.of(response.status, response.statusText, await response.text().catch(() => ""));
}

export async function call(method, path, body) {
  const asked = { method, headers: body ? { "content-type": "application/json" } : {} };
  if (body) asked.body = JSON.stringify(body);
  return (await ask(path, asked)).json();
}

// Sends one file; XMLHttpRequest, because fetch says nothing of what has gone out.
export function put(path, file, onsent, signal) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api${path}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onsent(event.loaded);
    request.onload = () => {
      if (request.status < 300) done();
      else failed(Refused.of(request.status, request.statusText, request.responseText));
    };
    request.onerror = () => failed(new Refused(0, "connection"));
    request.onabort = () => failed(new Refused(0, "aborted"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

export async function blob(path) {
  return (await ask(path)).blob();
}

export async function bytes(path, onread = () => {}) {
  const response = await ask(path);
  const reader = response.body.getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    onread(size);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole.buffer;
}

// Follows what changes, for ever: after an interruption from where it was.
export async function follow(onevent, onlink) {
  let last = "";
  for (;;) {
    try {
      const more = last ? { "last-event-id": last } : {};
      const response = await ask("/events", { headers: more });
      onlink(true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const found = {};
          for (const line of block.split("\n")) {
            const [name, ...rest] = line.split(": ");
            found[name] = rest.join(": ");
          }
          if (!found.id) continue;
          last = found.id;
          onevent(found.event, JSON.parse(found.data));
        }
      }
    } catch (failure) {
      if (failure.status === 401) return onlink(false, failure);
    }
    onlink(false);
    await new Promise((again) => setTimeout(again, 1000));
  }
}
