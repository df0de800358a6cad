import { scientificName, sheetName, thumbnail } from "./answer.js";
import { getJson } from "./api.js";
import { byId, counted, element, image } from "./dom.js";
import { showLarge } from "./viewer.js";

const SPECIES_PER_PAGE = 60;
const SHEETS_PER_PAGE = 24;

/** A list that grows page by page; an answer that comes late, after another list was begun, is dropped. */
class GrowingList {
  #list;
  #more;
  #fetchPage;
  #begun = 0;

  /** `fetchPage(offset)` gives `{ items, total }`, items being elements. */
  constructor(list, more, onError) {
    this.#list = list;
    this.#more = more;
    more.addEventListener("click", () => this.#grow(this.#begun).catch(onError));
  }

  async begin(fetchPage) {
    this.#begun += 1;
    this.#fetchPage = fetchPage;
    this.#more.hidden = true;
    return this.#grow(this.#begun, true);
  }

  async #grow(generation, replace = false) {
    this.#more.disabled = true;
    try {
      const { items, total } = await this.#fetchPage(replace ? 0 : this.#list.children.length);
      if (generation !== this.#begun) return;
      if (replace) this.#list.replaceChildren(...items);
      else this.#list.append(...items);
      if (!replace) items[0]?.querySelector("a, button")?.focus();
      this.#more.hidden = this.#list.children.length >= total || items.length === 0;
    } finally {
      this.#more.disabled = false;
    }
  }
}

/** The list of species with its search, and the sheets of one species. */
export class Herbarium {
  #species;
  #sheets;
  #searching;
  #onError;

  constructor(onError) {
    this.#onError = onError;
    this.#species = new GrowingList(byId("species-list"), byId("species-more"), onError);
    this.#sheets = new GrowingList(byId("sheets-grid"), byId("sheets-more"), onError);
    const search = byId("species-search");
    search.addEventListener("submit", (event) => event.preventDefault());
    search.addEventListener("input", () => {
      clearTimeout(this.#searching);
      this.#searching = setTimeout(() => this.showSpecies().catch(onError), 200);
    });
  }

  async showSpecies() {
    const query = byId("species-query").value.trim();
    await this.#species.begin(async (offset) => {
      const page = await getJson(`/v1/species?${new URLSearchParams({ q: query, limit: SPECIES_PER_PAGE, offset })}`);
      byId("species-count").textContent = query ? `${counted(page.total, "name")} found` : `${page.total.toLocaleString()} species`;
      return { total: page.total, items: page.species.map(speciesItem) };
    });
  }

  async showSheets(speciesId) {
    const title = byId("sheets-title");
    title.replaceChildren("…");
    byId("sheets-family").textContent = byId("sheets-count").textContent = "";
    byId("sheets-grid").replaceChildren();
    const species = await getJson(`/v1/species/${encodeURIComponent(speciesId)}`);
    title.replaceChildren(scientificName(species));
    byId("sheets-family").textContent = species.family ?? "";
    byId("sheets-count").textContent =
      `${counted(species.sheet_count, "herbarium sheet")}, ${counted(species.field_photo_count, "field photo")} in this collection`;
    await this.#sheets.begin(async (offset) => {
      const page = await getJson(`/v1/sheets?${new URLSearchParams({ species_id: speciesId, limit: SHEETS_PER_PAGE, offset })}`);
      return { total: page.total, items: page.sheets.map(sheetItem) };
    });
  }
}

function speciesItem(species) {
  const name = element("a", { href: `#/species/${encodeURIComponent(species.species_id)}` }, scientificName(species));
  const sheets = counted(species.sheet_count, "sheet");
  return element("li", {}, name, element("span", { className: "species-facts" }, [species.family, sheets].filter(Boolean).join(" · ")));
}

function sheetItem(sheet) {
  const title = `${sheet.scientific_name}, ${sheetName(sheet)}`;
  const picture = image(thumbnail(sheet, 320), title);
  picture.loading = "lazy";
  const open = element("button", { type: "button", className: "mount", "aria-label": `${title}: enlarge` }, picture);
  open.addEventListener("click", () => showLarge(thumbnail(sheet, 2048), title));
  const rights = [sheet.rights_holder, sheet.license].filter(Boolean).join(", ");
  return element("li", {}, element("figure", {}, open,
    element("figcaption", {}, element("b", {}, sheetName(sheet)), rights ? element("span", {}, rights) : null)));
}
