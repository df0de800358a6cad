import { byId, element } from "./dom.js";
import { released } from "./press.js";

const PAUSE_MILLISECONDS = 150;

/**
 * A field in which something is typed and chosen from a list, after the combobox pattern of the ARIA Authoring
 * Practices (list autocomplete, manual selection). Those who extend it say what is found, and what choosing does.
 */
export class Combobox {
  #input;
  #list;
  #status;
  #onError;
  #entries = [];
  #active = -1;
  #asked = 0;
  #pause;

  /** `id` is that of the input; `title` says what the list holds. */
  constructor(id, { title, onError }) {
    this.#input = byId(id);
    this.#onError = onError;
    this.#list = element("ul", { id: `${id}-list`, className: "options", role: "listbox", "aria-label": title, hidden: true });
    this.#status = element("p", { className: "visually-hidden combobox-status", role: "status" });
    this.#input.after(this.#list, this.#status);
    const attributes = {
      role: "combobox", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.#list.id,
    };
    for (const [name, value] of Object.entries(attributes)) this.#input.setAttribute(name, value);
    this.#input.addEventListener("input", () => this.#onInput());
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    this.#input.addEventListener("blur", () => this.#onBlur());
    // Otherwise the field would lose the focus before the click arrives.
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
  }

  /** What is in the field; setting it closes the list. */
  get text() {
    return this.#input.value.trim();
  }

  set text(text) {
    this.#input.value = text;
    this.#close();
  }

  focus() {
    this.#input.focus();
  }

  /** What fits `typed` as `{ entries: [{ label: nodes, take() }], words }`, words telling how many. To be extended. */
  async find() {
    return { entries: [], words: "" };
  }

  /** Something else is typed. To be extended. */
  onTyped() {}

  /** The field was left with `typed` in it. To be extended. */
  async onLeft() {}

  /** Enter was pressed while no entry is pointed at; true when that served. To be extended. */
  onEnter() {
    return false;
  }

  #onInput() {
    this.onTyped();
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => this.#search(), PAUSE_MILLISECONDS);
  }

  async #search() {
    const asked = (this.#asked += 1);
    try {
      const found = await this.find(this.text);
      // A late answer to an earlier text is dropped, and one for a field that was left.
      if (asked === this.#asked && document.activeElement === this.#input) this.#open(found);
    } catch (error) {
      this.#onError(error);
    }
  }

  #open({ entries, words }) {
    this.#entries = entries;
    this.#list.replaceChildren(...entries.map((entry, index) => this.#option(entry, index)));
    this.#list.hidden = entries.length === 0;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    this.#point(-1);
    this.#status.textContent = words;
    // Where there is no list to see, its words are seen.
    this.#status.classList.toggle("visually-hidden", entries.length > 0 || !this.text);
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
    this.#status.classList.add("visually-hidden");
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
    } else if (event.key === "Enter" && this.onEnter(this.#entries)) {
      event.preventDefault();
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault(); // the dialog around it stays
      this.#close();
    }
  }

  async #onBlur() {
    await released();
    if (document.activeElement === this.#input) return; // what was pressed led back to it
    const typed = this.text;
    this.#close();
    try {
      await this.onLeft(typed);
    } catch (error) {
      this.#onError(error);
    }
  }
}
