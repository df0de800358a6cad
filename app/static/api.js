const UNREACHABLE = "The service cannot be reached. Check the connection and try again.";

/** What the service or the way to it did not want; `message` is for people. */
export class ServiceError extends Error {
  /** `status` is 0 when nothing answered; `kind` is that of the problem document, such as `sheet-conflict`. */
  constructor(message, { status = 0, kind = "", detail = message, faults = [] } = {}) {
    super(message);
    Object.assign(this, { status, kind, detail, faults });
  }
}

/** JSON from a GET. Throws `ServiceError` with the detail of the problem document. */
export function getJson(path) {
  return requestJson("GET", path);
}

/** The JSON that answers a request; `body` is sent as JSON. Throws `ServiceError`. */
export async function requestJson(method, path, body = undefined) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ServiceError(UNREACHABLE);
  }
  if (!response.ok) throw problem(response.status, await response.text());
  return response.json();
}

/** Sends photos for identification; the rest is as for `upload`. */
export function identify(files, { topK, signal, onProgress }) {
  const form = new FormData();
  // Only bytes are sent: names of files tell more than the service needs.
  files.forEach((file, position) => form.append("photos", file, `photo-${position + 1}`));
  form.append("top_k", String(topK));
  return upload("/v1/identifications", form, { signal, onProgress });
}

/**
 * The JSON that answers a form. `onProgress` gets the part that is uploaded, 0 … 1; an aborted `signal` rejects with
 * an AbortError. XMLHttpRequest, because fetch tells nothing about an upload.
 */
export function upload(path, form, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problem(request.status, request.responseText));
    });
    request.addEventListener("error", () => {
      reject(new ServiceError("The service cannot be reached, or it refused the upload. Try again, perhaps with smaller images."));
    });
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

function problem(status, body) {
  try {
    const { type = "", title, detail, errors = [] } = JSON.parse(body);
    if (detail) {
      const kind = type.replace("urn:voucher:problem:", "");
      return new ServiceError(sentence(title, detail), { status, kind, detail: capitalised(detail), faults: errors });
    }
  } catch {
    // A proxy answered with its own page.
  }
  return new ServiceError(`The service answered with status ${status}. Try again in a moment.`, { status });
}

function sentence(title, detail) {
  return title ? `${title}. ${capitalised(detail)}` : capitalised(detail);
}

function capitalised(detail) {
  const upper = detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
