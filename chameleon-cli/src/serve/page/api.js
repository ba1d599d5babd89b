// What the page asks of the server: JSON, and answers that come piece by piece.
// Addresses are relative, so that the page also works behind a proxy that serves it under a path.

const KEY_NAME = "chameleon-api-key";

/** Why the server did not answer; `status` is 0 when it was not reached at all. */
export class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The key, for as long as the tab lives. Browsers may forbid the storage; then it lives as long as the page. */
export const key = {
  value: "",
  load() {
    try {
      this.value = sessionStorage.getItem(KEY_NAME) ?? "";
    } catch {
      this.value = "";
    }
  },
  keep(value) {
    this.value = value;
    try {
      sessionStorage.setItem(KEY_NAME, value);
    } catch {
      // It is still known to this page.
    }
  },
};

export async function getJson(address) {
  const response = await ask(address, {});
  try {
    return await response.json();
  } catch {
    throw broken();
  }
}

/**
 * Asks for an answer and hands its pieces on as they come.
 *
 * `on.note` gets the group, `on.text` what was written, `on.end` why it ended, `on.usage` what it cost.
 */
export async function streamAnswer(address, body, signal, on) {
  const response = await ask(address, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") return;
    const piece = JSON.parse(data);
    if (piece.error) throw new Failure(response.status, piece.error.code, piece.error.message);
    if (piece.usage) on.usage(piece.usage);
    const choice = piece.choices?.[0];
    if (!choice) continue;
    if (choice.chameleon) on.note(choice.chameleon);
    const text = choice.delta?.content ?? choice.text;
    if (text) on.text(text);
    if (choice.finish_reason) on.end(choice.finish_reason);
  }
  throw broken();
}

async function ask(address, options) {
  const headers = { ...options.headers };
  if (key.value) headers.authorization = `Bearer ${key.value}`;
  let response;
  try {
    response = await fetch(address, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "unreachable", "The server cannot be reached.");
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? `the server returned status ${response.status}`;
  const after = response.headers.get("retry-after");
  const advice = response.status === 429 && after ? ` Try again in ${after} s.` : "";
  return new Failure(response.status, body.error?.code ?? "", `${sentence(message)}${advice}`);
}

/** The data of server-sent events. */
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      throw signal.aborted || error.name === "AbortError" ? error : broken();
    }
    if (chunk.done) return;
    const blocks = (rest + chunk.value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (lines.length > 0) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

function broken() {
  return new Failure(0, "broken", "The connection broke before the answer was complete.");
}

/** Messages of the server begin in lower case and end without a full stop. */
export function sentence(message) {
  const text = message.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
