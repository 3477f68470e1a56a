// The page's own server: every request carries the token, and every failure is a message for the user.

const KEY = "regard-token";

/** The token of the address that was opened, which leaves the address bar but survives a reload; null without one. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

/** The server cannot be reached, or no longer. */
export class Lost extends Error {}

function lost(error) {
  throw error.name === "AbortError" ? error : new Lost(error.message);
}

export class Server {
  constructor(token) {
    this.token = token;
  }

  /** The response to a question, JSON or a file. Throws an Error that says why there is none. */
  async post(name, body, { signal } = {}) {
    const isFile = body instanceof Blob;
    const response = await fetch(`/api/${name}`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${this.token}`,
        "content-type": isFile ? "application/octet-stream" : "application/json",
      },
      body: isFile ? body : JSON.stringify(body),
      signal,
    }).catch(lost);
    if (!response.ok) throw new Error(await reason(response));
    return response;
  }

  async json(name, body = {}) {
    return (await this.post(name, body)).json();
  }

  /** The events of an answer, as they come. */
  async *stream(name, body, signal) {
    const response = await this.post(name, body, { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read().catch(lost);
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      // an empty line only says that the server is there
      for (const line of lines) if (line) yield JSON.parse(line);
    }
  }
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error;
  } catch {
    return text || response.statusText;
  }
}
