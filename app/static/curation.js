import { tell, withCode } from "./dom.js";

const NAME_KEY = "voucher.curator";

/** Whether the collection can be changed from here, and the name of whoever does. */
class Curation {
  #refusal = document.body.dataset.curationRefusal ?? "";
  #name = remembered(localStorageOrNone(), NAME_KEY) ?? "";

  constructor() {
    for (const input of document.querySelectorAll("[data-curator-name]")) {
      input.value = this.#name;
      input.addEventListener("input", () => this.#rename(input.value, input));
    }
    this.#render();
  }

  get allowed() {
    return !this.#refusal;
  }

  /** For the record; null when nobody has said one. */
  get name() {
    return this.#name.trim() || null;
  }

  /** Runs a change; the service's word that curation is off is remembered and shown. */
  async attempt(change) {
    try {
      return await change();
    } catch (error) {
      if (error.kind === "curation-off") {
        this.#refusal = error.detail;
        this.#render();
      }
      throw error;
    }
  }

  #rename(name, source) {
    this.#name = name;
    for (const input of document.querySelectorAll("[data-curator-name]")) if (input !== source) input.value = name;
    remember(localStorageOrNone(), NAME_KEY, name);
  }

  #render() {
    document.body.classList.toggle("curation-off", !this.allowed);
    for (const notice of document.querySelectorAll("[data-curation-off]")) {
      tell(notice, ...(this.allowed ? [] : refusalWords(this.#refusal)));
    }
    for (const control of document.querySelectorAll("#curate-fields, #curate-submit")) control.disabled = !this.allowed;
  }
}

function refusalWords(refusal) {
  const [, reason = refusal] = /^curation is off: (.*?)\.?$/i.exec(refusal) ?? [];
  return [
    ...withCode(`You can look at everything here, but change nothing: ${reason}. `),
    ...withCode("By default those who sit at the machine of the service may curate, at `localhost`; where it was " +
      "started with `VOUCHER_CURATION=on`, everybody who reaches it. `voucher sheets` and `voucher bundles` do the same " +
      "on the command line."),
  ];
}

/** Text kept under `key`, or null; a browser may keep nothing. */
export function remembered(storage, key) {
  try {
    return storage?.getItem(key) ?? null;
  } catch {
    return null;
  }
}

/** Keeps text under `key` where the browser allows it. */
export function remember(storage, key, text) {
  try {
    storage?.setItem(key, text);
  } catch {
    // Full, or not allowed: it is known until the page is left.
  }
}

/** The storage of this tab, or null where the browser allows none. */
export function sessionStorageOrNone() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

function localStorageOrNone() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

export const curation = new Curation();
