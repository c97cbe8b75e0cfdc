// The server, and nothing of the page: addresses, the key, and errors as values.

import { askForKey } from "./key.js";

const KEY = "asymseg-key";
let key = stored();

function stored() {
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

/** A request that the server refused or did not answer (status 0). */
export class Refusal extends Error {
  constructor(status, code, message, wait = 0) {
    super(message);
    Object.assign(this, { status, code, wait });
  }
}

async function send(path, init) {
  const headers = key ? { ...init.headers, Authorization: `Bearer ${key}` } : init.headers;
  try {
    return await fetch(path, { ...init, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "unreachable", "Is it still running? Your picture is not lost: try again when it is back.");
  }
}

async function refusal(response) {
  let said = {};
  try { said = (await response.json()).error ?? {}; } catch { /* something between us and the server answered */ }
  const wait = Number(response.headers.get("Retry-After")) || 0;
  return new Refusal(response.status, said.code ?? "", said.message ?? `The server answered ${response.status}.`, wait);
}

/** The response to a request; asks for a key where the server wants one. Throws Refusal, or AbortError. */
export async function request(path, init = {}) {
  for (let wrong = false; ; wrong = true) {
    const response = await send(path, init);
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.status !== 401) throw error;
    const given = await askForKey(wrong || key !== "");
    if (given === null) throw error;
    key = given;
    try { sessionStorage.setItem(KEY, key); } catch { /* then it is asked for again after a reload */ }
  }
}

export const models = async () => (await request("v1/models")).json();
export const examples = async () => (await request("examples")).json();
export const file = async (path) => (await request(path)).blob();

/** Without a model's name it is the server's first that answers. */
const predictPath = (model, words) => `v1/predict?${new URLSearchParams(model ? { model, ...words } : words)}`;

/** Its content decides what a file is, and not the type that a browser guesses from its name. */
function upload(body, signal) {
  return { method: "POST", body, signal, headers: { "Content-Type": "application/octet-stream" } };
}

/** What a model says of a picture, kept by the server for questions. While it is busy we wait and tell `onWait`. */
export async function predict(blob, model, signal, onWait) {
  const path = predictPath(model, { output: "json", keep: "true" });
  for (let tries = 1; ; tries += 1) {
    try {
      return await (await request(path, upload(blob, signal))).json();
    } catch (error) {
      if (error.status !== 503 || tries === 5) throw error;
      const seconds = Math.min(Math.max(error.wait, 1), 20);
      onWait(seconds);
      await pause(1000 * seconds, signal);
    }
  }
}

/** The picture as the server saw it, for formats that a browser cannot show. */
export async function seen(blob, model, signal) {
  const path = predictPath(model, { output: "overlay", opacity: "0" });
  return (await request(path, upload(blob, signal))).blob();
}

/** Probabilities of a pixel and the regions it drew on. */
export async function pixel(id, row, column, signal) {
  const words = new URLSearchParams({ row, column });
  return (await request(`v1/predictions/${encodeURIComponent(id)}/pixel?${words}`, { signal })).json();
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
