import { Answer } from "./answer.js";
import { identify } from "./api.js";
import { byId, counted, errorWords, tell } from "./dom.js";
import { timeTaken } from "./duration.js";
import { photoControls } from "./photo_controls.js";
import { Restriction } from "./restriction.js";
import { session } from "./session.js";
import { Tray } from "./tray.js";

const TOP_K = 5;

const NUMBERS = ["no", "one", "two", "three", "four", "five"];

/** The form that asks what a plant is, and the answer. */
export class IdentifyForm {
  #answer = new Answer();
  #tray;
  #restriction;
  #running = null;

  constructor({ maxPhotos, maxBytes, maxBytesTogether }) {
    byId("max-photos").textContent = NUMBERS[maxPhotos] ?? String(maxPhotos);
    this.#tray = new Tray({
      form: "form", list: "previews", inputs: ["files", "camera"], noun: "photo", most: maxPhotos, maxBytes, maxBytesTogether,
      onChange: (photos, complaint) => this.#onPhotos(photos, complaint),
      controls: (item, position, count) => photoControls(this.#tray, item, position, count),
    });
    this.#restriction = new Restriction({ onChange: () => this.#forget() });
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#running && this.#tray.items.length) this.#ask();
    });
    byId("cancel").addEventListener("click", () => this.#running?.abort());
  }

  /** Forgets photos and answer: somebody else may sit here next. */
  clear() {
    this.#running?.abort();
    this.#tray.clear();
    this.#answer.clear();
  }

  /** Something else is asked for now. */
  #forget() {
    if (!this.#running) say("");
    this.#answer.clear();
  }

  #onPhotos(photos, complaint) {
    byId("submit").disabled = photos.length === 0;
    say(photos.length ? `${counted(photos.length, "photo")} chosen` : "");
    complain(complaint);
    this.#answer.clear();
  }

  async #ask() {
    const controller = new AbortController();
    const photos = this.#tray.items;
    complain("");
    this.#answer.clear();
    this.#setRunning(controller);
    try {
      const { body, among, mendAt } = await this.#answerTo(photos, controller.signal);
      this.#setRunning(null);
      if (mendAt) {
        byId(mendAt).focus();
        return;
      }
      say(`Answered in ${timeTaken(body.milliseconds)}`);
      this.#answer.show(body, photos, among);
    } catch (error) {
      this.#setRunning(null);
      this.#onError(error);
    }
  }

  /** The answer as `body` and what it was restricted to as `among`; `mendAt` where nothing was sent, which is told. */
  async #answerTo(photos, signal) {
    say("");
    const asked = await this.#restriction.read();
    if (asked.mendAt) return asked;
    // Asked for before anything is sent: an upload that is refused half way ends without a reason.
    if (!(await session.opens("identify"))) {
      complain("Identifying needs a key. Nothing was sent.");
      return { mendAt: "submit" };
    }
    onProgress(0);
    const body = await identify(photos, { top_k: TOP_K, ...asked.fields }, { signal, onProgress });
    if (session.keysNeeded) session.load(); // what is left of the day
    return { body, among: asked.words };
  }

  #onError(error) {
    say("");
    if (error.name === "AbortError") {
      say("Cancelled.");
      byId("submit").focus();
    } else if (error.kind === "invalid-candidates") {
      this.#restriction.complain(error.detail.replace(/^(species_ids|genera|families): /i, ""));
      byId("restrict-taxon").focus();
    } else {
      complain(errorWords(error));
      byId("submit").focus();
    }
  }

  #setRunning(controller) {
    this.#running = controller;
    this.#tray.locked = Boolean(controller);
    byId("restrict-fields").disabled = Boolean(controller);
    byId("submit").hidden = byId("submit").disabled = Boolean(controller);
    byId("cancel").hidden = !controller;
    byId("progress").hidden = !controller;
    byId("progress").removeAttribute("value");
    if (controller) byId("cancel").focus();
  }
}

function say(words) {
  byId("status").textContent = words;
}

function complain(words) {
  tell(byId("error"), words);
}

function onProgress(part) {
  const progress = byId("progress");
  if (part < 1) {
    progress.value = part;
    say(`Sending: ${Math.round(100 * part)} %`);
  } else {
    progress.removeAttribute("value");
    say("Comparing with the herbarium …");
  }
}
