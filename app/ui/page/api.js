// Requests to the server, and its streams. Knows nothing of the page.

export class Refused extends Error {
  constructor(message, { kind = "", status = 0, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, retryAfter });
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { "Content-Type": "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("", { kind: "Unreachable", retryAfter: 3 });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(body.error?.message ?? response.statusText, {
    kind: body.error?.type ?? "",
    status: response.status,
    retryAfter: Number(response.headers.get("Retry-After") ?? 0),
  });
}

export const get = async (path) => (await request(path)).json();
export const post = async (path, body) => {
  const sent = JSON.stringify(body ?? {});
  // `keepalive` lets it arrive although the page is left; browsers allow 64 KB
  return (await request(path, { method: "POST", body: sent, keepalive: sent.length < 20_000 })).json();
};
export const put = async (path, body) =>
  (await request(path, { method: "PUT", body: JSON.stringify(body) })).json();
export const upload = async (path, file) =>
  (await request(path, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } })).json();
export const remove = async (path) => (await request(path, { method: "DELETE" })).json();

// Follows one answer. `handle` has `begin`, `patch`, `chains`, `called` and `end`. A lost connection is opened
// again, unless `signal` aborts. Resolves with the last event, or null if the answer is no longer
// running
export async function follow(path, body, handle, signal) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let response = await request(path, { ...options, signal });
  let live = "";
  for (let attempt = 0; ; attempt += 1) {
    try {
      for await (const [kind, data] of events(response)) {
        attempt = 0;
        if (kind === "begin") {
          live = data.live;
          handle.begin(data);
        } else if (kind === "end") {
          handle.end(data);
          return data;
        } else if (kind === "chains") handle.chains(...data);
        else if (kind === "called") handle.called(data);
        else handle.patch(...data);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // fetch throws a TypeError for a lost connection
    }
    if (!live) throw new Refused("", { kind: "Unreachable" });
    await new Promise((resolve) => setTimeout(resolve, Math.min(4000, 250 * 2 ** attempt)));
    try {
      response = await request(`chat/answers/${live}/stream`, { signal });
    } catch (error) {
      if (signal.aborted) throw error;
      if (error.kind === "Unreachable") response = new Response("");
      else return null;
    }
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const kind = lines[0].startsWith("event: ") ? lines.shift().slice(7) : "";
      yield [kind, JSON.parse(lines[0].slice(6))];
    }
  }
}
