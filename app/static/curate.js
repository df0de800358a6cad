import { upload } from "./api.js";
import { curation } from "./curation.js";
import { byId, counted, element, errorWords, image, tell } from "./dom.js";
import { historyItems } from "./history.js";
import { remember, remembered, sessionStorageOrNone } from "./memory.js";
import { scientificName, sheetName, thumbnail } from "./names.js";
import { session } from "./session.js";
import { SpeciesCombobox } from "./species_combobox.js";
import { Tray } from "./tray.js";

const MEMORY_KEY = "voucher.curate";
const MOST_SHEETS = 50;
const HISTORY_SHOWN = 10;

const NEW_SPECIES = ["scientific_name", "genus", "family", "species_id"];
const SPECIMEN = ["institution_code", "collection_code", "catalog_number", "license", "rights_holder"];

const OUTCOMES = { added: "Added", restored: "Restored: it had been removed", already_present: "Was here already" };
const SUMMARIES = { added: "added", restored: "restored", already_present: "here already" };

/** The form that adds sheets. What was typed stays until it has served, in the fields and for the session. */
export class CurateForm {
  #tray;
  #species;
  #running = null;
  #isBeingStored = false;
  #onAdded;

  /** `onAdded` is called when sheets have come into the collection. */
  constructor({ maxBytes, onAdded }) {
    this.#onAdded = onAdded;
    this.#tray = new Tray({
      form: "curate-form", list: "curate-previews", inputs: ["curate-files"],
      noun: "sheet", most: MOST_SHEETS, maxBytes, onChange: (sheets, complaint) => this.#onSheets(sheets, complaint),
    });
    this.#species = new SpeciesCombobox("curate-species", {
      onChange: () => {
        fault("species");
        this.#remember();
      },
      onNew: (name) => this.#beginNewSpecies(name),
      onError: (error) => fault("species", errorWords(error)),
    });
    for (const id of ["curate-known", "curate-new"]) byId(id).addEventListener("change", () => this.#showKind());
    for (const name of [...NEW_SPECIES, ...SPECIMEN]) {
      byId(`curate-${name}`).addEventListener("input", () => {
        fault(name);
        this.#remember();
      });
    }
    byId("curate-scientific_name").addEventListener("change", () => this.#suggestGenus());
    byId("curate-form").addEventListener("submit", (event) => this.#onSubmit(event));
    byId("curate-cancel").addEventListener("click", () => this.#running?.abort());
    this.#recall();
  }

  /** Forgets the sheets that were chosen and what became of others: somebody else may sit here next. */
  clear() {
    this.#running?.abort();
    this.#tray.clear();
    byId("curate-outcomes").hidden = true;
    byId("curate-outcome-list").replaceChildren();
  }

  #onSheets(sheets, complaint) {
    say(sheets.length ? `${counted(sheets.length, "sheet")} chosen` : "");
    fault("files", complaint);
    tell(byId("curate-error"));
  }

  get #isNew() {
    return byId("curate-new").checked;
  }

  #showKind() {
    byId("curate-known-fields").hidden = this.#isNew;
    byId("curate-new-fields").hidden = !this.#isNew;
    this.#remember();
  }

  #beginNewSpecies(name) {
    byId("curate-new").checked = true;
    byId("curate-scientific_name").value = name;
    this.#showKind();
    this.#suggestGenus();
    byId("curate-scientific_name").focus();
  }

  #suggestGenus() {
    const [first, second] = value("scientific_name").split(/\s+/);
    if (!value("genus") && second) byId("curate-genus").value = first;
    this.#remember();
  }

  async #onSubmit(event) {
    event.preventDefault();
    if (this.#running || !curation.allowed || !this.#check() || !(await session.opens("curate"))) return;
    const sheets = this.#tray.items;
    this.#begin();
    const outcomes = [];
    let stopped = null;
    for (const [index, item] of sheets.entries()) {
      try {
        this.#isBeingStored = false;
        outcomes.push(await this.#send(item, (part) => {
          this.#isBeingStored = part === 1;
          showProgress(index, sheets.length, part);
        }));
        this.#tray.take(item);
      } catch (error) {
        stopped = this.#refused(error, item);
        if (stopped) break;
      }
    }
    this.#finish(outcomes, stopped);
  }

  /** Whether everything that is needed is there; says at each field what is not, and goes to the first. */
  #check() {
    for (const name of ["files", "species", "curator", ...NEW_SPECIES, ...SPECIMEN]) fault(name);
    tell(byId("curate-error"));
    const missing = [];
    const miss = (name, words) => missing.push(fault(name, words));
    if (!this.#tray.items.length) miss("files", "Choose at least one sheet.");
    if (this.#isNew) {
      if (!value("scientific_name")) miss("scientific_name", "Give the name of the species.");
      if (!value("genus")) miss("genus", "Give its genus.");
      if (!value("family")) miss("family", "Give its family.");
    } else if (!this.#species.chosen) {
      miss("species", this.#species.text
        ? "No species of this collection has exactly this name. Choose one from the list, or enter it as a new one."
        : "Choose a species from the list.");
    }
    missing[0]?.focus();
    return missing.length === 0;
  }

  #begin() {
    this.#running = new AbortController();
    for (const item of this.#tray.items) this.#tray.note(item, "");
    this.#lock(true);
    byId("curate-cancel").focus();
  }

  /** One sheet for each request: one that is refused keeps no other out, and none makes the upload too large. */
  async #send(item, onProgress) {
    const form = new FormData();
    form.append("images", item.file, "sheet"); // names of files tell more than is needed
    const fields = this.#isNew ? [...NEW_SPECIES, ...SPECIMEN] : SPECIMEN;
    const values = Object.fromEntries(fields.map((name) => [name, value(name)]));
    if (!this.#isNew) values.species_id = this.#species.chosen.species_id;
    values.curator = curation.name ?? "";
    for (const [name, text] of Object.entries(values)) if (text) form.append(name, text);
    const { sheets } = await curation.attempt(() => upload("/v1/sheets", form, { signal: this.#running.signal, onProgress }));
    const [sheet] = sheets;
    if (this.#isNew) this.#settle(sheet);
    return sheet;
  }

  /** A new species is one of the collection from its first sheet on. */
  #settle(sheet) {
    this.#species.chosen = { species_id: sheet.species_id, scientific_name: sheet.scientific_name };
    byId("curate-known").checked = true;
    for (const name of NEW_SPECIES) byId(`curate-${name}`).value = "";
    this.#showKind();
  }

  /**
   * Why no more sheets are sent, as `{ words, field }`, `isUnsure` where one of them may have arrived; null where only
   * this sheet is refused.
   */
  #refused(error, item) {
    if (error.name === "AbortError") {
      const maybe = this.#isBeingStored ? " The one that had just been sent may be in the collection all the same: sent again, it does no harm." : "";
      return { words: `Stopped. What is left is still here.${maybe}`, isUnsure: true };
    }
    const { name, words } = fieldOf(error);
    if (name) return { words: "", field: fault(name, words) };
    const isOfSheet = error.kind === "sheet-conflict" || [413, 415, 422].includes(error.status);
    if (!isOfSheet) return { words: errorWords(error) };
    this.#tray.note(item, words);
    return null;
  }

  #finish(outcomes, stopped) {
    this.#running = null;
    this.#lock(false);
    const left = this.#tray.items.length;
    const parts = Object.keys(SUMMARIES)
      .map((kind) => [outcomes.filter((sheet) => sheet.outcome === kind).length, SUMMARIES[kind]])
      .filter(([count]) => count)
      .map(([count, words], index) => `${index ? count : counted(count, "sheet")} ${words}`);
    const rest = left ? `${counted(left, "sheet")} ${stopped?.isUnsure ? "left" : "not added"}` : "";
    say([...parts, rest].filter(Boolean).join(", "));
    tell(byId("curate-error"), stopped?.words ?? (left ? `${counted(left, "sheet")} refused; above, below ${left === 1 ? "it" : "each"}, you can read why.` : ""));
    if (outcomes.length) {
      showOutcomes(outcomes);
      // The next sheet is of another specimen, and most often of the same herbarium.
      if (!left) byId("curate-catalog_number").value = "";
      this.#remember();
      this.#onAdded();
    }
    if (stopped?.field) stopped.field.focus();
    else if (!left) byId("curate-outcomes-title").focus();
    else byId("curate-submit").focus();
  }

  #lock(locked) {
    this.#tray.locked = locked;
    byId("curate-fields").disabled = locked || !curation.allowed;
    byId("curate-submit").hidden = locked;
    byId("curate-cancel").hidden = byId("curate-progress").hidden = !locked;
  }

  #remember() {
    const fields = Object.fromEntries([...NEW_SPECIES, ...SPECIMEN].map((name) => [name, byId(`curate-${name}`).value]));
    const kept = { fields, isNew: this.#isNew, species: this.#species.chosen };
    remember(sessionStorageOrNone(), MEMORY_KEY, JSON.stringify(kept));
  }

  #recall() {
    const kept = JSON.parse(remembered(sessionStorageOrNone(), MEMORY_KEY) ?? "null");
    if (!kept) return;
    for (const [name, text] of Object.entries(kept.fields)) byId(`curate-${name}`).value = text;
    this.#species.chosen = kept.species;
    byId(kept.isNew ? "curate-new" : "curate-known").checked = true;
    this.#showKind();
  }
}

/** Lists who changed what last. */
export function showRecent({ latest }) {
  const items = historyItems(latest).slice(0, HISTORY_SHOWN);
  byId("recent").hidden = items.length === 0;
  byId("recent-list").replaceChildren(...items);
}

function showOutcomes(sheets) {
  byId("curate-outcomes").hidden = false;
  byId("curate-outcome-list").replaceChildren(...sheets.map((sheet) => {
    const species = element("a", { href: `#/species/${encodeURIComponent(sheet.species_id)}` }, scientificName(sheet));
    return element("li", {}, image(thumbnail(sheet, 160), ""),
      element("div", {}, element("b", { className: `outcome-${sheet.outcome}` }, OUTCOMES[sheet.outcome] ?? sheet.outcome),
        element("span", {}, sheetName(sheet)), species));
  }));
}

function showProgress(index, count, part) {
  byId("curate-progress").value = (index + part) / count;
  say(part < 1 ? `Sending sheet ${index + 1} of ${count}: ${Math.round(100 * part)} %` : `Sheet ${index + 1} of ${count} is being stored …`);
}

function value(name) {
  return byId(`curate-${name}`).value.trim();
}

function say(words) {
  byId("curate-status").textContent = words;
}

/** Says at a field what is wrong with it, or that nothing is; gives the field. */
function fault(name, words = "") {
  const field = byId(`curate-${name}`);
  tell(byId(`curate-${name}-error`), words);
  if (words) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
  return field;
}

/** The field that an error is about, if any, and what is wrong with it. */
function fieldOf({ kind, detail = "" }) {
  const words = capitalised(detail.replace(/^(sheet|image) \d+: /i, ""));
  const ofSpecies = byId("curate-new").checked ? "scientific_name" : "species";
  if (["species-conflict", "unknown-species"].includes(kind)) return { name: ofSpecies, words };
  const [, start = "", told = ""] = /^([a-z_]+): (.*)$/is.exec(words) ?? [];
  const name = [...NEW_SPECIES, ...SPECIMEN, "curator"].find((each) => each === start.toLowerCase());
  if (!name) return { name: "", words };
  return { name: NEW_SPECIES.includes(name) && ofSpecies === "species" ? "species" : name, words: capitalised(told) };
}

function capitalised(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
