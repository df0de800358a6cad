import { getJson } from "./api.js";
import { Combobox } from "./combobox.js";
import { counted, element } from "./dom.js";
import { scientificName } from "./names.js";
import { released } from "./press.js";

const SEARCH = "/v1/species";
const SHOWN = 12;
const MOST_CHARACTERS = 100;

/** A combobox of the collection's species. Nothing counts as chosen but an entry of the list. */
export class SpeciesCombobox extends Combobox {
  #chosen = null;
  #onChange;
  #onNew;

  /** `id` is that of the input; `onNew(name)`, where given, is offered for a name that is not in the list. */
  constructor(id, { onChange = () => {}, onNew = null, onError }) {
    super(id, { title: "Species", onError });
    this.#onChange = onChange;
    this.#onNew = onNew;
  }

  /** The chosen species as `{ species_id, scientific_name }`, or null. */
  get chosen() {
    return this.#chosen;
  }

  set chosen(species) {
    this.#chosen = species;
    this.text = species?.scientific_name ?? "";
  }

  onTyped() {
    this.#chosen = null;
    this.#onChange();
  }

  async find(typed) {
    const query = this.#chosen ? "" : typed;
    const { species, total } = await findSpecies(query);
    const entries = species.map((each) => ({
      label: [scientificName(each), element("span", { className: "option-facts" }, [each.family, counted(each.sheet_count, "sheet")].filter(Boolean).join(" · "))],
      take: () => this.#take(each),
    }));
    if (this.#onNew && query) {
      entries.push({ label: ["A species that is not here yet: ", element("i", {}, query)], take: () => this.#takeNew(query) });
    }
    const more = total > species.length ? `, the first ${species.length} are shown` : "";
    return { entries, words: total === 1 ? "1 species found" : `${total.toLocaleString()} species found${more}` };
  }

  /** A name that was typed in full needs no choosing; anything else stays as it was typed, and counts as nothing. */
  async onLeft(typed) {
    if (this.#chosen || !typed) return;
    const { species } = await findSpecies(typed);
    await released();
    const same = species.filter((each) => [each.scientific_name, each.species_id].some((name) => name.toLowerCase() === typed.toLowerCase()));
    if (same.length === 1 && this.text === typed && !this.#chosen) this.#take(same[0]);
  }

  #take(species) {
    this.chosen = species;
    this.#onChange();
  }

  #takeNew(name) {
    this.chosen = null;
    this.#onNew(name);
  }
}

function findSpecies(query) {
  return getJson(`${SEARCH}?${new URLSearchParams({ q: query.slice(0, MOST_CHARACTERS), limit: SHOWN })}`);
}
