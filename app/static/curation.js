import { element, tell, withCode } from "./dom.js";
import { localStorageOrNone, remember, remembered } from "./memory.js";
import { session, SESSION_CHANGED } from "./session.js";

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
    document.addEventListener(SESSION_CHANGED, () => {
      this.#refusal = session.curationRefusal ?? "";
      this.#render();
    });
    this.#render();
  }

  get allowed() {
    return !this.#refusal;
  }

  /** Whether what curators do can be looked at; with keys, that is for those who have one. */
  get visible() {
    return !session.keysNeeded || session.may("curate");
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
      if (!this.allowed && session.keysNeeded) notice.append(" ", signInButton());
    }
    for (const control of document.querySelectorAll("#curate-fields, #curate-submit")) control.disabled = !this.allowed;
  }
}

function refusalWords(refusal) {
  if (session.keysNeeded) {
    return [session.signedIn ? `The key “${session.name}” is for other things: curating needs one with the scope curate.` : "Curating needs a key with the scope curate."];
  }
  const [, reason = refusal] = /^curation is off: (.*?)\.?$/i.exec(refusal) ?? [];
  return [
    ...withCode(`You can look at everything here, but change nothing: ${reason}. `),
    ...withCode("Where keys are needed, those with a curator's key may curate; otherwise those who sit at the machine of " +
      "the service, at `localhost`. `voucher sheets` and `voucher bundles` do the same on the command line."),
  ];
}

function signInButton() {
  const button = element("button", { type: "button", className: "link" }, session.signedIn ? "Sign in with another key" : "Sign in");
  button.addEventListener("click", () => session.ask("curate"));
  return button;
}

export const curation = new Curation();
