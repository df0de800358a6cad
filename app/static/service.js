import { getJson } from "./api.js";
import { byId } from "./dom.js";

const PAUSE_MILLISECONDS = 1000;
const PATIENCE_MILLISECONDS = 60_000;

/** Who answers: the body of `/readyz`, told in the colophon too. Throws `ServiceError` when nothing can answer. */
export async function readiness() {
  const ready = await getJson("/readyz");
  byId("bundle").textContent = `${ready.species_count.toLocaleString()} species · collection ${ready.bundle_id}`;
  return ready;
}

/**
 * Waits until the service answers from a bundle that was put into service: an empty text when it does, otherwise why
 * it does not yet.
 */
export async function followed(bundleId) {
  const deadline = Date.now() + PATIENCE_MILLISECONDS;
  let complaint = "";
  while (Date.now() < deadline) {
    try {
      const ready = await readiness();
      if (ready.bundle_id === bundleId) return "";
      complaint = ready.complaint ?? "";
      if (complaint) return complaint;
    } catch (error) {
      complaint = error.message; // A service that has no bundle yet says so with 503.
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
  }
  return complaint || "it is still loading it";
}
