import { getJson } from "./api.js";
import { INDEX_CHANGED } from "./build.js";
import { curation } from "./curation.js";
import { byId, counted, element, image, tell } from "./dom.js";
import { scientificName, sheetName, thumbnail } from "./names.js";
import { SESSION_CHANGED } from "./session.js";
import { restoreTool, SHEETS_CHANGED, sheetNow, sheetTools } from "./sheet_actions.js";
import { sheetFacts } from "./sheet_facts.js";
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
  #onFine;
  /** The search whose species are shown; null when they are to be asked for anew. */
  #query = null;
  #shown = { speciesId: "", removed: false };

  /** `onError(error)` is called when something cannot be shown, `onFine()` when it can. */
  constructor({ onError, onFine }) {
    this.#onFine = onFine;
    this.#species = new GrowingList(byId("species-list"), byId("species-more"), onError);
    this.#sheets = new GrowingList(byId("sheets-grid"), byId("sheets-more"), onError);
    const search = byId("species-search");
    search.addEventListener("submit", (event) => event.preventDefault());
    search.addEventListener("input", () => {
      clearTimeout(this.#searching);
      this.#searching = setTimeout(() => this.showSpecies().catch(onError), 200);
    });
    for (const event of [SHEETS_CHANGED, INDEX_CHANGED, SESSION_CHANGED]) document.addEventListener(event, () => (this.#query = null));
    document.addEventListener(SHEETS_CHANGED, (event) => this.#onSheetsChanged(event.detail.sheetIds).catch(onError));
  }

  /** The species that fit the search; those that are there already stay, as far as the list was grown. */
  async showSpecies() {
    const query = byId("species-query").value.trim();
    if (query === this.#query) return;
    this.#query = null;
    byId("species-count").textContent = "Looking …";
    await this.#species.begin(async (offset) => {
      const page = await getJson(`/v1/species?${new URLSearchParams({ q: query, limit: SPECIES_PER_PAGE, offset })}`);
      byId("species-count").textContent = query ? `${counted(page.total, "name")} found` : `${page.total.toLocaleString()} species`;
      return { total: page.total, items: page.species.map(speciesItem) };
    });
    if (byId("species-query").value.trim() === query) this.#query = query;
    this.#onFine();
  }

  /** The sheets of a species, or with `removed` those that were removed and can be restored. */
  async showSheets(speciesId, removed = false) {
    const title = byId("sheets-title");
    title.replaceChildren("…");
    byId("sheets-family").textContent = byId("sheets-count").textContent = "";
    tell(byId("sheets-known"));
    tell(byId("sheets-removed"));
    byId("sheets-grid").replaceChildren();
    this.#shown = { speciesId, removed };
    try {
      await this.#showHead();
    } catch (error) {
      if (this.#shown.speciesId === speciesId) this.#showFailure(error);
      throw error;
    }
    await this.#sheets.begin(async (offset) => {
      const asked = { species_id: speciesId, limit: SHEETS_PER_PAGE, offset, ...(removed ? { removed } : {}) };
      const page = await getJson(`/v1/sheets?${new URLSearchParams(asked)}`);
      return { total: page.total, items: page.sheets.map((sheet) => (removed ? removedItem(sheet) : sheetItem(sheet))) };
    });
  }

  /** Instead of the head of a species that is not there, or cannot be asked for. */
  #showFailure({ status }) {
    byId("sheets-title").replaceChildren(status === 404 ? "No such species" : "This species cannot be shown now");
    const again = element("button", { type: "button", className: "link" }, "Try again");
    again.addEventListener("click", () => window.dispatchEvent(new Event("hashchange")));
    tell(byId("sheets-removed"), element("a", { href: "#/species" }, "All species"), status === 404 ? null : " · ", status === 404 ? null : again);
  }

  async #showHead() {
    const { speciesId, removed } = this.#shown;
    const species = await getJson(`/v1/species/${encodeURIComponent(speciesId)}`);
    if (this.#shown.speciesId !== speciesId || this.#shown.removed !== removed) return;
    byId("sheets-title").replaceChildren(...(removed ? ["Removed sheets of ", scientificName(species)] : [scientificName(species)]));
    byId("sheets-family").textContent = species.family ?? "";
    const here = `#/species/${encodeURIComponent(speciesId)}`;
    const other = removed
      ? element("a", { href: here }, "Back to its sheets")
      : element("a", { href: `${here}/removed` }, "Removed sheets of this species");
    tell(byId("sheets-removed"), removed || curation.allowed ? other : null);
    tell(byId("sheets-known"), removed ? "" : knownWords(species));
    if (removed) {
      const { total } = await getJson(`/v1/sheets?${new URLSearchParams({ species_id: speciesId, limit: 1, removed })}`);
      byId("sheets-count").textContent = removedWords(total);
      return;
    }
    byId("sheets-count").textContent =
      `${counted(species.sheet_count, "herbarium sheet")}, ${counted(species.field_photo_count, "field photo")} in this collection`;
  }

  /** Shows sheets that were changed as they are now, each in its place. */
  async #onSheetsChanged(sheetIds) {
    const items = [...byId("sheets-grid").children].filter((item) => sheetIds.includes(item.dataset.sheetId));
    if (byId("sheets").hidden || !items.length) return;
    const hadFocus = items.some((item) => item.contains(document.activeElement));
    for (const item of items) {
      const sheet = await sheetNow(item.dataset.sheetId);
      const now = sheet.removed ? removedItem(sheet) : sheet.species_id === this.#shown.speciesId ? sheetItem(sheet) : movedItem(sheet);
      item.replaceWith(now);
      if (hadFocus) now.querySelector("a, button")?.focus();
    }
    await this.#showHead();
  }
}

function speciesItem(species) {
  const name = element("a", { href: `#/species/${encodeURIComponent(species.species_id)}` }, scientificName(species));
  const facts = [species.family, counted(species.sheet_count, "sheet"), KNOWN[knownBy(species)].short];
  return element("li", {}, name, element("span", { className: "species-facts" }, facts.filter(Boolean).join(" · ")));
}

/** How answers know a species, in a word and in a sentence. */
const KNOWN = {
  photos: { short: "trained with photos", words: "Field photos of this species were in training: classifier and sheets both speak for it." },
  sheets: { short: "known from sheets alone", words: "Known from herbarium sheets alone: no field photos of it were in training, so percentages for it are less certain." },
  late: { short: "added after training", words: "Added after training: answers find it through its sheets alone." },
  absent: { short: "not in answers yet", words: "Answers do not know this species yet: it needs sheets, and a build since they were added." },
  unsaid: { short: "", words: "" },
};

function knownBy({ in_index: isKnown, in_classifier: isTrained, has_field_photos: hasPhotos }) {
  if (typeof isKnown !== "boolean") return "unsaid";
  if (!isKnown) return "absent";
  if (!isTrained) return "late";
  return hasPhotos ? "photos" : "sheets";
}

function knownWords(species) {
  return KNOWN[knownBy(species)].words;
}

function sheetItem(sheet) {
  return sheetFigure(sheet, { tools: sheetTools(sheet) });
}

function removedItem(sheet) {
  return sheetFigure(sheet, { state: "Removed", tools: restoreTool(sheet) });
}

function movedItem(sheet) {
  const link = element("a", { href: `#/species/${encodeURIComponent(sheet.species_id)}` }, scientificName(sheet));
  return sheetFigure(sheet, { state: ["Moved to ", link], tools: [] });
}

/** `state` says what became of it, where it is no longer a sheet of this species. */
function sheetFigure(sheet, { state = null, tools }) {
  const title = `${sheet.scientific_name}, ${sheetName(sheet)}`;
  const picture = image(thumbnail(sheet, 320), title);
  picture.loading = "lazy";
  const open = element("button", { type: "button", className: "mount", "aria-label": `${title}: enlarge` }, picture);
  const viewerTools = (close) => (state ? [] : sheetTools(sheet, { beforeAsking: close }));
  open.addEventListener("click", () => showLarge([{ source: thumbnail(sheet, 2048), title, tools: viewerTools, facts: async () => sheetFacts(sheet) }]));
  const rights = [sheet.rights_holder, sheet.license].filter(Boolean).join(", ");
  const caption = element("figcaption", {}, element("b", {}, sheetName(sheet)), rights ? element("span", {}, rights) : null);
  const item = element("li", { className: state ? "gone" : "", "data-sheet-id": sheet.sheet_id }, element("figure", {}, open, caption));
  if (state) item.append(element("p", { className: "sheet-state" }, ...[state].flat()));
  if (tools.length) item.append(element("div", { className: "sheet-tools" }, ...tools));
  return item;
}

function removedWords(count) {
  if (count === 0) return "No sheet of this species was removed, or the files are deleted for good.";
  return `${counted(count, "sheet")}, out of the collection until restored; the files are kept until they are cleaned up.`;
}
