import { getJson, requestJson } from "./api.js";
import { ask } from "./ask.js";
import { changeWords, INDEX_CHANGED } from "./build.js";
import { curation } from "./curation.js";
import { byId, counted, element, errorWords, percent, tell, when, withCode } from "./dom.js";
import { followed, readiness } from "./service.js";
import { VersionChanges } from "./version_changes.js";

const LOOK_MILLISECONDS = 5_000;
const SHOWN_AT_ONCE = 20;

/** The versions of the index: what each holds, which one answers, and a way to have another one answer. */
export class Versions {
  #shown = SHOWN_AT_ONCE;
  #bundles = [];
  #answering = "";
  #looking = false;
  /** What is on the page, by bundle: its element and what it was made from, so that nothing is made anew in vain. */
  #items = new Map();

  constructor() {
    byId("versions-more").addEventListener("click", () => {
      const first = this.#shown;
      this.#shown += SHOWN_AT_ONCE;
      this.#render();
      byId("versions-list").children[first]?.querySelector("summary")?.focus();
    });
    document.addEventListener(INDEX_CHANGED, () => this.#isSeen && this.look());
    setInterval(() => this.#isSeen && this.look(), LOOK_MILLISECONDS);
  }

  /** Shows none any more. */
  clear() {
    this.#bundles = [];
    this.#items.clear();
    byId("versions-list").replaceChildren();
    byId("versions-more").hidden = true;
    tell(byId("versions-complaint"));
  }

  /** Asks for the versions and shows what has changed. */
  async look() {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const [{ bundles }, ready] = await Promise.all([getJson("/v1/bundles"), answering()]);
      this.#bundles = bundles;
      this.#answering = ready.bundle_id;
      tell(byId("versions-complaint"), ...withCode(ready.complaint ? `${complaintStart(ready)}${ready.complaint}` : ""));
      this.#render();
    } catch (error) {
      tell(byId("versions-complaint"), errorWords(error));
    } finally {
      this.#looking = false;
    }
  }

  get #isSeen() {
    return curation.visible && !byId("versions").hidden && !document.hidden;
  }

  #render() {
    const list = byId("versions-list");
    const shown = this.#bundles.slice(0, this.#shown);
    if (!shown.length) list.replaceChildren(element("li", { className: "status" }, "Nothing is built yet."));
    const items = shown.map((bundle, index) => this.#item(bundle, index));
    // Elements that stay are not touched: what is focused or unfolded remains so.
    items.forEach((item, index) => list.children[index] === item || list.insertBefore(item, list.children[index] ?? null));
    while (shown.length && list.children.length > items.length) list.lastElementChild.remove();
    byId("versions-more").hidden = this.#bundles.length <= this.#shown;
  }

  #item(bundle, index) {
    const activeIndex = this.#bundles.findIndex((each) => each.is_active);
    const state = { bundle, isAnswering: bundle.bundle_id === this.#answering, isEarlier: activeIndex >= 0 && index > activeIndex, may: curation.allowed };
    const signature = JSON.stringify(state);
    const known = this.#items.get(bundle.bundle_id);
    if (known?.signature === signature) return known.item;
    const changes = known?.changes ?? new VersionChanges(bundle, () => this.#bundles);
    const hadFocus = known?.item.contains(document.activeElement) && !changes.element.contains(document.activeElement);
    const item = this.#newItem(state, changes);
    known?.item.replaceWith(item);
    if (hadFocus) (item.querySelector(".version-act button") ?? item.querySelector("summary")).focus();
    this.#items.set(bundle.bundle_id, { item, signature, changes });
    return item;
  }

  #newItem({ bundle, isAnswering, isEarlier, may }, changes) {
    const name = when(bundle.created_at) || bundle.bundle_id;
    const id = `version-${bundle.bundle_id}`;
    const act = element("div", { className: "version-act" });
    if (may && !bundle.is_active && !bundle.fault) {
      const words = isEarlier ? "Go back to this version" : "Serve this version";
      const button = element("button", { type: "button", className: "button quiet", "aria-describedby": id }, words);
      button.addEventListener("click", () => this.#serve(bundle, name, words));
      act.append(button);
    }
    return element("li", { className: bundle.is_active ? "version active" : "version", "aria-labelledby": id },
      element("div", { className: "version-head" },
        element("h2", { id, className: "version-title" }, name),
        ...badges(bundle, isAnswering), element("span", { className: "version-by" }, bundle.built_by ? `built by ${bundle.built_by}` : "")),
      ...versionReasons(bundle),
      bundle.fault ? null : facts(bundle), act,
      bundle.fault ? null : changes.element);
  }

  async #serve(bundle, name, words) {
    const active = this.#bundles.find((each) => each.is_active);
    const warning = bundle.held_back ? [" It was held back: ", ...withCode(bundle.held_back), "."] : [];
    const done = await ask({
      title: `${words}?`,
      words: [
        `The version of ${name} (${counted(bundle.sheets, "sheet")}, ${bundle.species.toLocaleString()} species) answers from then on`,
        active ? `, in the place of that of ${when(active.created_at)}.` : ".", ...warning,
        " Sheets stay in the collection as they are; nothing is deleted, and you can change it back here.",
      ],
      yes: words,
      act: () => curation.attempt(() => requestJson("POST", `/v1/bundles/${encodeURIComponent(bundle.bundle_id)}/activate`, { curator: curation.name })),
    });
    if (!done) return;
    await this.look();
    byId("versions-title").focus();
    this.#say(`The service is taking up the version of ${name} …`);
    const complaint = await followed(bundle.bundle_id);
    this.#say(complaint ? `The service does not answer from the version of ${name}: ${complaint}` : `The version of ${name} is in service.`);
    await this.look();
  }

  #say(words) {
    byId("versions-status").replaceChildren(...withCode(words));
  }
}

/** Who answers; a service that cannot answer says why in its complaint. */
async function answering() {
  try {
    return await readiness();
  } catch (error) {
    if (error.status !== 503) throw error;
    return { bundle_id: "", complaint: error.detail };
  }
}

function complaintStart(ready) {
  return ready.bundle_id ? "The version that was put into service last cannot be served; the one before goes on answering. " : "No version answers. ";
}

function badges({ is_active: isActive, fault, held_back: heldBack }, isAnswering) {
  const made = [];
  const badge = (words, kind) => made.push(element("span", { className: `badge ${kind}` }, words));
  if (isActive && isAnswering) badge("In service", "good");
  else if (isActive) badge(fault ? "Chosen" : "Being taken up", "good");
  else if (isAnswering) badge("Still answering", "good");
  if (fault) badge("Damaged", "bad");
  else if (heldBack && !isActive) badge("Held back", "bad");
  return made;
}

function versionReasons({ fault, held_back: heldBack, is_active: isActive }) {
  const why = fault ? `It cannot be served: ${fault}` : heldBack && !isActive ? `It was not put into service by itself: ${heldBack}` : "";
  return why ? [element("p", { className: "version-reason" }, ...withCode(/[.!?]$/.test(why) ? why : `${why}.`))] : [];
}

function facts({ sheets, species, changes, base, validation, model_id: model }) {
  const entries = [
    ["Sheets", sheets.toLocaleString()],
    ["Species", species.toLocaleString()],
    ["Changes", base ? plusMinus(changes) : "built from nothing"],
    ["Right on photos that training knows", validation ? validationWords(validation) : "not measured"],
    ["Model", model],
  ];
  return element("dl", { className: "facts" }, ...entries.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

function plusMinus(changes) {
  const { added, removed, moved } = changes;
  const short = [`+${added.toLocaleString()}`, `−${removed.toLocaleString()}`, `↔${moved.toLocaleString()}`].join(" ");
  return element("span", {}, element("span", { "aria-hidden": "true" }, short), element("span", { className: "visually-hidden" }, changeWords(changes)));
}

function validationWords({ top1, top1_interval: interval, photos }) {
  const between = interval ? ` (${percent(interval[0])} to ${percent(interval[1])})` : "";
  return `${percent(top1)}${between} of ${counted(photos, "photo")}`;
}
