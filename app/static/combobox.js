import { getJson } from "./api.js";
import { byId, counted, element } from "./dom.js";
import { scientificName } from "./names.js";

const SEARCH = "/v1/species";
const SHOWN = 12;
const MOST_CHARACTERS = 100;
const PAUSE_MILLISECONDS = 150;

/**
 * A field in which a species is typed and chosen from a list, after the combobox pattern of the ARIA Authoring
 * Practices (list autocomplete, manual selection). Nothing counts as chosen but an entry of the list.
 */
export class SpeciesCombobox {
  #input;
  #list;
  #status;
  #onChange;
  #onNew;
  #onError;
  #entries = [];
  #active = -1;
  #chosen = null;
  #asked = 0;
  #pause;

  /** `id` is that of the input; `onNew(name)`, where given, is offered for a name that is not in the list. */
  constructor(id, { onChange = () => {}, onNew = null, onError }) {
    this.#input = byId(id);
    this.#onChange = onChange;
    this.#onNew = onNew;
    this.#onError = onError;
    this.#list = element("ul", { id: `${id}-list`, className: "options", role: "listbox", "aria-label": "Species", hidden: true });
    this.#status = element("p", { className: "visually-hidden", role: "status" });
    this.#input.after(this.#list, this.#status);
    const attributes = {
      role: "combobox", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.#list.id,
    };
    for (const [name, value] of Object.entries(attributes)) this.#input.setAttribute(name, value);
    this.#input.addEventListener("input", () => this.#onTyped());
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    this.#input.addEventListener("blur", () => this.#onLeft());
    // Otherwise the field would lose the focus before the click arrives.
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
  }

  /** The chosen species as `{ species_id, scientific_name }`, or null. */
  get chosen() {
    return this.#chosen;
  }

  set chosen(species) {
    this.#chosen = species;
    this.#input.value = species?.scientific_name ?? "";
    this.#close();
  }

  get text() {
    return this.#input.value.trim();
  }

  #onTyped() {
    this.#chosen = null;
    this.#onChange();
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => this.#search(), PAUSE_MILLISECONDS);
  }

  async #search() {
    const asked = (this.#asked += 1);
    const query = this.#chosen ? "" : this.text;
    try {
      const page = await getJson(`${SEARCH}?${new URLSearchParams({ q: query.slice(0, MOST_CHARACTERS), limit: SHOWN })}`);
      // A late answer to an earlier text is dropped, and one for a field that was left.
      if (asked === this.#asked && document.activeElement === this.#input) this.#open(page, query);
    } catch (error) {
      this.#onError(error);
    }
  }

  #open({ species, total }, query) {
    this.#entries = species.map((each) => ({
      label: [scientificName(each), element("span", { className: "option-facts" }, [each.family, counted(each.sheet_count, "sheet")].filter(Boolean).join(" · "))],
      take: () => this.#take(each),
    }));
    if (this.#onNew && query) {
      const label = ["A species that is not here yet: ", element("i", {}, query)];
      this.#entries.push({ label, take: () => this.#takeNew(query) });
    }
    this.#list.replaceChildren(...this.#entries.map((entry, index) => this.#option(entry, index)));
    this.#list.hidden = this.#entries.length === 0;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    this.#point(-1);
    const more = total > species.length ? `, the first ${species.length} are shown` : "";
    this.#status.textContent = total === 1 ? "1 species found" : `${total.toLocaleString()} species found${more}`;
  }

  #option(entry, index) {
    const option = element("li", { id: `${this.#list.id}-${index}`, role: "option", "aria-selected": "false" }, ...entry.label);
    option.addEventListener("click", () => entry.take());
    return option;
  }

  #close() {
    this.#asked += 1;
    clearTimeout(this.#pause);
    this.#entries = [];
    this.#list.hidden = true;
    this.#list.replaceChildren();
    this.#status.textContent = "";
    this.#input.setAttribute("aria-expanded", "false");
    this.#point(-1);
  }

  #point(index) {
    this.#active = index;
    [...this.#list.children].forEach((option, position) => option.setAttribute("aria-selected", String(position === index)));
    const option = this.#list.children[index];
    if (option) {
      this.#input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else {
      this.#input.removeAttribute("aria-activedescendant");
    }
  }

  #take(species) {
    this.chosen = species;
    this.#onChange();
  }

  #takeNew(name) {
    this.chosen = null;
    this.#onNew(name);
  }

  #onKey(event) {
    const isOpen = !this.#list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      const count = this.#entries.length;
      if (!isOpen) this.#search();
      // −1 stands for the field itself, between the last entry and the first.
      else this.#point(((this.#active + 1 + step + count + 1) % (count + 1)) - 1);
    } else if (event.key === "Enter" && isOpen && this.#active >= 0) {
      event.preventDefault();
      this.#entries[this.#active].take();
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault(); // the dialog around it stays
      this.#close();
    }
  }

  /** A name that was typed in full needs no choosing; anything else stays as it was typed, and counts as nothing. */
  async #onLeft() {
    const typed = this.text;
    this.#close();
    if (this.#chosen || !typed) return;
    try {
      const page = await getJson(`${SEARCH}?${new URLSearchParams({ q: typed.slice(0, MOST_CHARACTERS), limit: SHOWN })}`);
      const same = page.species.filter((each) => [each.scientific_name, each.species_id].some((name) => name.toLowerCase() === typed.toLowerCase()));
      if (same.length === 1 && this.text === typed && !this.#chosen) this.#take(same[0]);
    } catch (error) {
      this.#onError(error);
    }
  }
}
