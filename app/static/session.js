import { onKeyNeeded, requestJson } from "./api.js";
import { byId, element, errorWords, tell } from "./dom.js";

/**
 * Dispatched on the document when what one may do here has changed: `isFirst` when it becomes known, `isOut` when
 * somebody has signed out on purpose.
 */
export const SESSION_CHANGED = "session-changed";

const ADDRESS = "/v1/session";

/** What counts until the service has said it, and where it cannot say it: its refusals tell the rest. */
const UNKNOWN = { keys_needed: false, signed_in: false, may_identify: true, may_curate: null, scopes: [], name: null, curation_refusal: null, quota: null };

const SCOPE_WORDS = { identify: "Identifying plants", curate: "Curating" };

/** Who is signed in here with which key, what it is good for, and the dialog that asks for one. */
class Session {
  #known = UNKNOWN;
  #dialog = byId("sign-in-dialog");
  #question = null;
  #hasDeclined = false;
  /** Settled once the service has said what one may do. */
  ready;

  constructor() {
    byId("sign-in").addEventListener("click", () => this.ask());
    byId("sign-out").addEventListener("click", () => this.#signOut());
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#onKey();
    });
    byId("sign-in-no").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#onClosed());
    // Whoever has said no is not asked again by the same view.
    window.addEventListener("hashchange", () => (this.#hasDeclined = false));
    onKeyNeeded((error, mustAsk) => this.#onRefused(error, mustAsk));
    this.ready = this.load();
  }

  get keysNeeded() {
    return this.#known.keys_needed;
  }

  get signedIn() {
    return this.#known.signed_in;
  }

  /** Whether identifications are counted, and end with the day's share. */
  get isCounted() {
    return Boolean(this.#known.quota);
  }

  /** What the operator has called the key. */
  get name() {
    return this.#known.name ?? "";
  }

  /** Whether `scope` (identify, curate) is open; true where that is not known, as the service decides anyway. */
  may(scope) {
    return this.#known[`may_${scope}`] ?? true;
  }

  /** Why the collection cannot be changed, in the service's words; null where it can, undefined while unknown. */
  get curationRefusal() {
    return this.#known === UNKNOWN ? undefined : this.#known.curation_refusal;
  }

  /** Asks the service anew what one may do. */
  async load({ isOut = false } = {}) {
    try {
      this.#take(await requestJson("GET", ADDRESS, undefined, { asks: false }), isOut);
    } catch {
      // What one may do is then told by whatever is tried.
    }
  }

  /** Whether `scope` is open, after asking for a key where that may help. */
  async opens(scope) {
    await this.ready;
    return this.may(scope) || this.ask(scope);
  }

  /**
   * Asks for a key that opens `scope`, or for any; true when one was given. Several who ask at one time share the
   * question.
   */
  ask(scope = null, why = "") {
    this.#question ??= this.#open(scope, why);
    return this.#question.answer;
  }

  #open(scope, why) {
    const needed = scope ? `${SCOPE_WORDS[scope]} needs a key with the scope ${scope}.` : "Some of what this service does needs a key.";
    const other = scope && this.signedIn ? ` The key “${this.name}” is for other things.` : "";
    tell(byId("sign-in-words"), `${why || needed + other} The operator of the service gives out keys.`);
    tell(byId("sign-in-error"));
    this.#dialog.showModal();
    byId("sign-in-key").focus();
    const question = { scope };
    question.answer = new Promise((resolve) => (question.resolve = resolve));
    return question;
  }

  #onClosed() {
    this.#hasDeclined = Boolean(this.#question);
    this.#end(false);
    // The button that opened it may be gone; the browser looks for it after this event.
    setTimeout(() => {
      const isLost = document.activeElement === document.body || this.#dialog.contains(document.activeElement);
      if (this.signedIn && isLost) byId("sign-out").focus();
    });
  }

  #end(isGiven) {
    byId("sign-in-key").value = "";
    const question = this.#question;
    this.#question = null;
    question?.resolve(isGiven);
  }

  async #onKey() {
    const key = byId("sign-in-key").value.trim();
    if (!key) return this.#complain("Paste or type the key.");
    byId("sign-in-yes").disabled = true;
    try {
      const remember = byId("sign-in-remember").checked;
      this.#take(await requestJson("POST", ADDRESS, { key, remember }, { asks: false }));
    } catch (error) {
      return this.#complain(errorWords(error));
    } finally {
      byId("sign-in-yes").disabled = false;
    }
    const { scope } = this.#question ?? {};
    if (scope && !this.may(scope)) {
      return this.#complain(`You are signed in, but this key is for: ${this.#known.scopes.join(", ")}. ${SCOPE_WORDS[scope]} needs the scope ${scope}.`);
    }
    this.#end(true);
    this.#dialog.close();
    return undefined;
  }

  #complain(words) {
    tell(byId("sign-in-error"), words);
    byId("sign-in-key").select();
    byId("sign-in-key").focus();
  }

  /** A request was refused for want of a key: whether another attempt is worth while. */
  async #onRefused(error, mustAsk) {
    const had = this.signedIn ? this.name : "";
    if (!this.#question) await this.load();
    if (this.#hasDeclined && !mustAsk) return false;
    return this.ask(null, had && error.kind === "key-wrong" ? `The key “${had}” is good no longer.` : "This needs a key.");
  }

  async #signOut() {
    try {
      await requestJson("DELETE", ADDRESS);
      await this.load({ isOut: true });
      byId("sign-in").focus();
    } catch (error) {
      tell(byId("notice"), `You are still signed in. ${errorWords(error)}`);
    }
  }

  #take(body, isOut = false) {
    const essence = ({ key_id: keyId, scopes, curation_refusal: refusal, keys_needed: needed }) => JSON.stringify([keyId, scopes, refusal, needed]);
    const isFirst = this.#known === UNKNOWN;
    const hasChanged = isFirst || essence(body) !== essence(this.#known);
    this.#known = body;
    this.#render();
    if (hasChanged) document.dispatchEvent(new CustomEvent(SESSION_CHANGED, { detail: { isFirst, isOut } }));
  }

  #render() {
    const { keys_needed: keysNeeded, signed_in: signedIn, name, quota } = this.#known;
    byId("session").hidden = !keysNeeded;
    byId("sign-in").hidden = signedIn;
    byId("sign-out").hidden = !signedIn;
    const left = quota ? element("span", { className: "session-left" }, `${quota.remaining.toLocaleString()} of ${quota.limit.toLocaleString()} left today`) : null;
    const key = element("span", { className: "session-name", title: `Signed in with the key “${name}”` }, element("span", { className: "visually-hidden" }, "Signed in with the key "), name);
    tell(byId("session-who"), ...(signedIn ? [key, left] : []));
  }
}

export const session = new Session();
