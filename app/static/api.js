/** What the service or the way to it did not want; `message` is for people. */
export class ServiceError extends Error {}

/** JSON from a GET. Throws `ServiceError` with the detail of the problem document. */
export async function getJson(path) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new ServiceError("The service cannot be reached. Check the connection and try again.");
  }
  if (!response.ok) throw new ServiceError(problemText(response.status, await response.text()));
  return response.json();
}

/**
 * Sends photos for identification. `onProgress` gets the part that is uploaded, 0 … 1; an aborted `signal`
 * rejects with an AbortError. XMLHttpRequest, because fetch tells nothing about an upload.
 */
export function identify(files, { topK, signal, onProgress }) {
  const form = new FormData();
  // Only bytes are sent: names of files tell more than the service needs.
  files.forEach((file, position) => form.append("photos", file, `photo-${position + 1}`));
  form.append("top_k", String(topK));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/identifications");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(new ServiceError(problemText(request.status, request.responseText)));
    });
    request.addEventListener("error", () => {
      reject(new ServiceError("The service cannot be reached, or it refused the upload. Try again, perhaps with smaller photos."));
    });
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

function problemText(status, body) {
  try {
    const problem = JSON.parse(body);
    if (problem.detail) return sentence(problem.title, problem.detail);
  } catch {
    // A proxy answered with its own page.
  }
  return `The service answered with status ${status}. Try again in a moment.`;
}

function sentence(title, detail) {
  const upper = detail.charAt(0).toUpperCase() + detail.slice(1);
  const whole = /[.!?]$/.test(upper) ? upper : `${upper}.`;
  return title ? `${title}. ${whole}` : whole;
}
