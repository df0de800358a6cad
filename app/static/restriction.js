import { INDEX_CHANGED } from "./build.js";
import { Combobox } from "./combobox.js";
import { byId, element, errorWords, percent, tell } from "./dom.js";
import { released } from "./press.js";
import { SESSION_CHANGED } from "./session.js";
import { allSpecies, forgetSpecies } from "./species_list.js";

const TAXA_SHOWN = 12;
const NAMES_SHOWN = 8;
const PAUSE_MILLISECONDS = 300;

/** Genera and families of the collection. */
class TaxonCombobox extends Combobox {
  #onTaken;

  constructor(id, { onTaken, onError }) {
    super(id, { title: "Genera and families", onError });
    this.#onTaken = onTaken;
  }

  async find(typed) {
    const list = await listOfSpecies();
    const taxa = list.taxa(typed);
    const entries = taxa.slice(0, TAXA_SHOWN).map((taxon) => ({ label: taxonWords(taxon), take: () => this.#take(taxon) }));
    const more = taxa.length > TAXA_SHOWN ? `, the first ${TAXA_SHOWN} are shown` : "";
    return { entries, words: taxa.length ? `${taxa.length.toLocaleString()} found${more}` : "Nothing found" };
  }

  /** Takes the only entry; the form is not sent from here. */
  onEnter(entries) {
    const wasTyped = this.text !== "";
    if (entries.length === 1) entries[0].take();
    return wasTyped;
  }

  /** A name that was typed in full needs no choosing. */
  async onLeft(typed) {
    if (typed) await this.takeExactly(typed);
  }

  /** Takes the genus or family that is called so, whatever its case; false where there is none. */
  async takeExactly(typed) {
    const exact = (await listOfSpecies()).taxa(typed).filter(({ name }) => name.toLowerCase() === typed.toLowerCase());
    if (exact.length !== 1) return false;
    if (this.text === typed) this.#take(exact[0]);
    return true;
  }

  #take(taxon) {
    this.text = "";
    this.#onTaken(taxon);
  }
}

/** “Only among …”: which species an answer may name. Nothing given means all. */
export class Restriction {
  #taxa = [];
  /** How many species the checklist has, null while that is not known. */
  #listed = null;
  #taxon;
  #onChange;
  #pause;
  #asked = 0;

  /** `onChange` is called when something else is asked for. */
  constructor({ onChange }) {
    this.#onChange = onChange;
    this.#taxon = new TaxonCombobox("restrict-taxon", {
      onTaken: (taxon) => this.#add(taxon),
      onError: (error) => this.complain(errorWords(error)),
    });
    byId("restrict-checklist").addEventListener("input", () => {
      clearTimeout(this.#pause);
      this.#pause = setTimeout(() => this.#onChecklist(), PAUSE_MILLISECONDS);
    });
    byId("restrict-clear").addEventListener("click", () => this.#clear());
    for (const event of [INDEX_CHANGED, SESSION_CHANGED]) document.addEventListener(event, forgetSpecies);
  }

  /** Says what is wrong with it, where it can be mended. */
  complain(words) {
    tell(byId("restrict-error"), words);
    if (words) byId("restrict").open = true;
  }

  /**
   * What is to be sent, as `{ fields, words }`: `fields` of the form, `words` for whom it is restricted to, empty where
   * it is not. Where that cannot be, which is then told, `{ mendAt }`: the id of the field. Throws `ServiceError`.
   */
  async read() {
    this.complain("");
    const typed = this.#taxon.text;
    if (typed && !(await this.#taxon.takeExactly(typed))) {
      this.complain(`“${typed}” is no genus or family that answers can name. Choose one from the list, or empty the field.`);
      return { mendAt: "restrict-taxon" };
    }
    const text = byId("restrict-checklist").value;
    if (!this.#taxa.length && !text.trim()) return { fields: {}, words: [] };
    const list = await listOfSpecies();
    const { species } = text.trim() ? list.checklist(text) : { species: null };
    const fields = fieldsOf(this.#taxa, species, list);
    if (fields.species_ids === "") {
      this.complain(this.#taxa.length
        ? "No species of the checklist is of these genera and families. Take out one or the other."
        : "The checklist has no species that answers can name.");
      return { mendAt: "restrict-checklist" };
    }
    return { fields, words: this.#words(species) };
  }

  #words(species) {
    const taxa = this.#taxa.flatMap(({ rank, name }, index) => [index ? ", " : "", `${rank} `, rank === "genus" ? element("i", {}, name) : name]);
    const ofList = species ? [`${taxa.length ? " on " : ""}a checklist of ${species.length.toLocaleString()} species`] : [];
    return [...taxa, ...ofList];
  }

  #add(taxon) {
    if (!this.#taxa.some(({ rank, name }) => rank === taxon.rank && name === taxon.name)) this.#taxa.push(taxon);
    this.#changed();
  }

  #clear() {
    this.#taxa = [];
    byId("restrict-checklist").value = "";
    this.#onChecklist();
    this.#taxon.focus();
  }

  #changed() {
    this.complain("");
    byId("restrict-taxa").replaceChildren(...this.#taxa.map((taxon) => this.#chip(taxon)));
    this.#summarise();
    this.#onChange();
  }

  #chip(taxon) {
    const button = element("button", { type: "button", className: "chip", "aria-label": `Take out ${taxon.rank} ${taxon.name}` },
      element("span", {}, taxon.rank === "genus" ? element("i", {}, taxon.name) : taxon.name), element("span", { "aria-hidden": "true" }, " ×"));
    button.addEventListener("click", () => {
      this.#taxa = this.#taxa.filter((each) => each !== taxon);
      this.#changed();
      this.#taxon.focus();
    });
    return element("li", {}, button);
  }

  async #onChecklist() {
    const asked = (this.#asked += 1);
    await released();
    if (asked !== this.#asked) return;
    const text = byId("restrict-checklist").value;
    this.#listed = null;
    this.#changed();
    tell(byId("restrict-found"));
    if (!text.trim()) return;
    try {
      const list = await listOfSpecies();
      if (asked !== this.#asked) return;
      const found = list.checklist(text);
      tell(byId("restrict-found"), ...foundWords(found));
      this.#listed = found.species.length;
      this.#summarise();
    } catch (error) {
      this.complain(errorWords(error));
    }
  }

  /** Tells also while it is folded that not all species are asked for. */
  #summarise() {
    const hasList = byId("restrict-checklist").value.trim() !== "";
    const parts = this.#taxa.map(({ name }) => name);
    if (hasList) parts.push(this.#listed === null ? "a checklist" : `a checklist of ${this.#listed.toLocaleString()}`);
    byId("restrict-summary").textContent = parts.length ? parts.join(", ") : "all species";
    byId("restrict").classList.toggle("active", parts.length > 0);
    byId("restrict-clear").hidden = parts.length === 0;
  }
}

/**
 * Fields for taxa of which any will do, and species of which each must be: the service narrows by every field that is
 * given, so genera and families together are sent as their species.
 */
function fieldsOf(taxa, species, list) {
  const ranks = new Set(taxa.map(({ rank }) => rank));
  if (ranks.size < 2) {
    const [rank] = ranks;
    const fields = species ? { species_ids: ids(species.filter((each) => !rank || taxa.some(({ name }) => each[rank] === name))) } : {};
    if (rank && !species) fields[rank === "genus" ? "genera" : "families"] = taxa.map(({ name }) => name).join(",");
    return fields;
  }
  const ofTaxa = list.ofTaxa(taxa);
  const listed = species && new Set(species.map((each) => each.species_id));
  return { species_ids: ids(listed ? ofTaxa.filter((each) => listed.has(each.species_id)) : ofTaxa) };
}

function ids(species) {
  return species.map((each) => each.species_id).join(",");
}

function taxonWords({ rank, name, count }) {
  const facts = `${rank}, ${count.toLocaleString()} species`;
  return [rank === "genus" ? element("i", {}, name) : name, element("span", { className: "option-facts" }, facts)];
}

function foundWords({ species, absent, unknown }) {
  const lines = [`${species.length.toLocaleString()} species of this checklist can be named by answers.`];
  if (absent.length) lines.push(`Not before the next build (${absent.length.toLocaleString()}): ${listed(absent.map((each) => each.scientific_name))}.`);
  if (unknown.length) lines.push(`Not in this collection, and left out (${unknown.length.toLocaleString()}): ${listed(unknown)}.`);
  return lines.map((line) => element("span", {}, line));
}

function listed(names) {
  const more = names.length - NAMES_SHOWN;
  return names.slice(0, NAMES_SHOWN).join(", ") + (more > 0 ? ` and ${more.toLocaleString()} more` : "");
}

/** All species, once nothing is pressed: whoever asks for them changes the page with what they find. */
async function listOfSpecies() {
  try {
    return await allSpecies((part) => sayReading(`Reading the list of species: ${percent(part)}`));
  } finally {
    await sayReading("");
  }
}

async function sayReading(words) {
  await released();
  byId("restrict-reading").textContent = words;
}
