import { explain } from "./api.js";
import { errorWords } from "./dom.js";
import { heatMapsFound } from "./heat_maps.js";
import { session } from "./session.js";

/** Whether the service makes heat maps at all. */
export const canMatch = document.body.dataset.explanations === "true";

const UNREADABLE = "The picture of this sheet cannot be read, so what matches cannot be shown.";
const EXPIRED = "What matches is kept for a while only.";
const NO_KEY = "This needs a key.";
const AGAIN = "Switch it off and on again to have it looked for anew.";

/**
 * What matches between the photos and the sheets of one answer: looked for when somebody wants to see it, one pair at a
 * time, and remembered for as long as the answer is there.
 */
export class Matches {
  #photos = [];
  /** By photo and sheet: `{ photo, sheet }` addresses of heat maps, or `{ words }` why there are none. */
  #found = new Map();
  #wanted = null;
  #running = null;
  #last = null;

  /** Begins with another answer; `photos` as `{ file }`. */
  begin(photos) {
    this.#running?.abort();
    this.#photos = photos;
    this.#found.clear();
    this.#running = this.#wanted = null;
  }

  /** What is known of a pair; null where it was not looked for, or is being looked for. */
  of(photo, sheetId) {
    return this.#found.get(key(photo, sheetId)) ?? null;
  }

  isLookingFor(photo, sheetId) {
    return this.#wanted === key(photo, sheetId);
  }

  /** Has failures tried again. */
  forgetFailures() {
    for (const [pair, { words }] of this.#found) if (words && words !== UNREADABLE) this.#found.delete(pair);
  }

  /** A heat map that was found cannot be had any more. */
  miss(photo, sheetId) {
    this.#found.set(key(photo, sheetId), { words: `${EXPIRED} ${AGAIN}` });
    heatMapsFound();
  }

  /** Looks for what matches in a pair, unless that is known; what is looked for already is given up for it. */
  async lookFor(photo, sheetId) {
    const pair = key(photo, sheetId);
    if (this.#wanted === pair) return;
    this.#running?.abort();
    this.#running = this.#wanted = null;
    // Whoever looks at another pair meanwhile has the first one tried again.
    if (this.#last !== pair) this.forgetFailures();
    this.#last = pair;
    if (this.#found.has(pair)) return;
    const controller = new AbortController();
    this.#running = controller;
    this.#wanted = pair;
    heatMapsFound(); // nothing yet, which is told
    const found = await this.#ask(photo, sheetId, controller.signal);
    if (this.#running !== controller) return;
    this.#running = this.#wanted = null;
    if (found) this.#found.set(pair, found);
    heatMapsFound();
  }

  /** Null when it was given up. */
  async #ask(photo, sheetId, signal) {
    try {
      if (!(await session.opens("identify"))) return { words: `${NO_KEY} ${AGAIN}` };
      const { explanations: [{ explanation }] } = await explain(this.#photos[photo].file, sheetId, { signal });
      if (session.keysNeeded) session.load(); // what is left of the day
      if (!explanation) return { words: UNREADABLE };
      return { photo: explanation.photo_heat_map_url, sheet: explanation.sheet_heat_map_url };
    } catch (error) {
      return error.name === "AbortError" ? null : { words: `${errorWords(error)} ${AGAIN}` };
    }
  }
}

function key(photo, sheetId) {
  return `${photo} ${sheetId}`;
}
