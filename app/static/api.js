import { duration } from "./duration.js";

const REFUSED = "The service cannot be reached, or it refused the upload. Try again, perhaps with smaller images.";
const UNREACHABLE = "The service cannot be reached. Check the connection and try again.";

/** What the service or the way to it did not want; `message` is for people. */
export class ServiceError extends Error {
  /** `status` is 0 when nothing answered; `kind` is that of the problem document, such as `sheet-conflict`. */
  constructor(message, { status = 0, kind = "", detail = message, faults = [] } = {}) {
    super(message);
    Object.assign(this, { status, kind, detail, faults });
  }
}

let askForKey = async () => false;

/**
 * Has `ask(error, mustAsk)` called for requests that were refused for want of a key; those for which it gives true are
 * sent again. `mustAsk` tells those that change or ask something from those that only look.
 */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function withKey(attempt, mustAsk) {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (error.status !== 401 || !(await askForKey(error, mustAsk))) throw error;
    }
  }
}

/** JSON from a GET. Throws `ServiceError` with the detail of the problem document. */
export function getJson(path) {
  return requestJson("GET", path);
}

/**
 * The JSON that answers a request, null where nothing does; `body` is sent as JSON. Where a key is needed, it is asked
 * for unless `asks` is false. Throws `ServiceError`.
 */
export async function requestJson(method, path, body = undefined, { asks = true } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const attempt = async () => {
    let response;
    try {
      response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
      throw new ServiceError(UNREACHABLE);
    }
    if (!response.ok) throw problem(response.status, await response.text(), response.headers.get("Retry-After"));
    return response.status === 204 ? null : response.json();
  };
  return asks ? withKey(attempt, method !== "GET") : attempt();
}

/**
 * Sends photos as `{ file, organ }` for identification, with `fields` of more values by name; the rest is as for
 * `upload`.
 */
export function identify(photos, fields, { signal, onProgress }) {
  const form = new FormData();
  // Only bytes are sent: names of files tell more than the service needs.
  photos.forEach(({ file }, position) => form.append("photos", file, `photo-${position + 1}`));
  if (photos.some(({ organ }) => organ)) for (const { organ } of photos) form.append("organs", organ || "auto");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return upload("/v1/identifications", form, { signal, onProgress });
}

/** Looks for what makes one photo and one sheet alike; the rest is as for `upload`. */
export function explain(file, sheetId, { signal }) {
  const form = new FormData();
  form.append("photos", file, "photo-1");
  form.append("sheet_ids", sheetId);
  return upload("/v1/explanations", form, { signal, onProgress: () => {}, unreachable: UNREACHABLE });
}

/**
 * The JSON that answers a form. `onProgress` gets the part that is uploaded, 0 … 1; an aborted `signal` rejects with
 * an AbortError. Where a key is needed, it is asked for. `unreachable` is said where nothing answers.
 */
export function upload(path, form, { signal, onProgress, unreachable = REFUSED }) {
  return withKey(() => uploadOnce(path, form, { signal, onProgress, unreachable }), true);
}

/** XMLHttpRequest, because fetch tells nothing about an upload. */
function uploadOnce(path, form, { signal, onProgress, unreachable }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problem(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => {
      reject(new ServiceError(unreachable));
    });
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    if (signal.aborted) reject(new DOMException("cancelled", "AbortError"));
    else request.send(form);
  });
}

function problem(status, body, retryAfter) {
  try {
    const { type = "", title, detail, errors = [] } = JSON.parse(body);
    if (detail) {
      const kind = type.replace("urn:voucher:problem:", "");
      const words = plainWords(kind, detail, Number(retryAfter) || 0) ?? sentence(title, detail);
      return new ServiceError(words, { status, kind, detail: capitalised(detail), faults: errors });
    }
  } catch {
    // A proxy answered with its own page.
  }
  return new ServiceError(`The service answered with status ${status}. Try again in a moment.`, { status });
}

/** What people at the page can do about some problems; the service's own words are for programs. */
function plainWords(kind, detail, seconds) {
  const again = seconds ? `in ${duration(seconds)}` : "later";
  const [, scope = ""] = /scope ([a-z]+(?: or [a-z]+)*)/.exec(detail) ?? [];
  const words = {
    "key-missing": "This needs a key, and none was given.",
    "scope-missing": `Your key is for other things: this needs one with the scope ${scope}. Sign in with such a key, or ask the operator of the service for one.`,
    "rate-exceeded": `Your key asks too often. Try again ${again}.`,
    "quota-spent": `Your key has identified as many plants today as it may. Try again ${again}.`,
    "too-many-failures": `Too many wrong keys were tried from here. Try again ${again}.`,
  };
  return words[kind] ?? null;
}

function sentence(title, detail) {
  return title ? `${title}. ${capitalised(detail)}` : capitalised(detail);
}

function capitalised(detail) {
  const upper = detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
