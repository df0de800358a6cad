import { byId, counted, element, image, tell } from "./dom.js";
import { HEAT_MAPS_CHANGED, heatMaps, picture } from "./heat_maps.js";
import { scientificName, sheetName, thumbnail } from "./names.js";
import { organWords } from "./photo_controls.js";
import { sheetTools } from "./sheet_actions.js";
import { factsOf } from "./sheet_facts.js";
import { showLarge } from "./viewer.js";

/** A photo and a sheet of one candidate side by side, with what matches in both, and both in large. */
export class Evidence {
  #photos = [];
  #candidates = [];
  #candidate = null;
  #shown = { photo: 0, sheet: 0 };
  /** Heat maps that were not to be had any more. */
  #missing = new Set();

  constructor() {
    byId("heat-toggle").addEventListener("click", () => heatMaps.toggle());
    byId("compare-large").addEventListener("click", () => showLarge([this.#photoView(), this.#sheetView()]));
    document.addEventListener(HEAT_MAPS_CHANGED, () => {
      if (!this.#candidate) return;
      if (heatMaps.shown) this.#choosePhoto();
      this.#render();
    });
  }

  /** Begins with another answer; `photos` as `{ url, organ }`. */
  begin(photos, candidates) {
    this.#photos = photos;
    this.#candidates = candidates;
    this.#candidate = null;
    this.#shown = { photo: 0, sheet: 0 };
    this.#missing.clear();
    byId("evidence").hidden = candidates.length === 0;
  }

  /** Compares with another candidate. */
  show(candidate) {
    this.#candidate = candidate;
    this.#shown.sheet = 0;
    byId("evidence-title").replaceChildren("Compare with ", scientificName(candidate));
    byId("evidence-more").replaceChildren(
      element("a", { href: `#/species/${encodeURIComponent(candidate.species_id)}` }, "All sheets of this species"));
    if (heatMaps.shown) this.#choosePhoto();
    this.#render();
  }

  get #sheet() {
    return this.#candidate.sheets[this.#shown.sheet] ?? null;
  }

  /** What is known of why the chosen sheet is similar; null where nothing is. */
  get #explanation() {
    return this.#sheet?.explanation ?? null;
  }

  /** Shows the photo that the chosen sheet was compared with. */
  #choosePhoto() {
    if (this.#explanation) this.#shown.photo = this.#explanation.photo_position - 1;
  }

  /** Address of a heat map that is to be seen now: `side` is photo or sheet. */
  #heatMap(side) {
    const isOfThese = this.#explanation?.photo_position === this.#shown.photo + 1;
    const source = isOfThese ? this.#explanation[`${side}_heat_map_url`] : null;
    return source && !this.#missing.has(source) ? source : null;
  }

  #render() {
    this.#renderPhoto();
    this.#renderSheet();
    this.#renderSwitch();
    byId("compare-large").hidden = !this.#sheet;
  }

  #renderSwitch() {
    const isAny = this.#candidates.some(({ sheets }) => sheets.some(({ explanation }) => explanation));
    byId("heat-toggle").hidden = !isAny;
    byId("heat-toggle").setAttribute("aria-pressed", String(heatMaps.shown));
    const words = isAny && heatMaps.shown && this.#sheet ? this.#heatWords() : "";
    tell(byId("heat-words"), words);
    byId("heat-legend").hidden = !words || !this.#heatMap("photo") || !this.#heatMap("sheet");
  }

  /** Why no heat maps are to be seen, or nothing where they are: what these mean stands below them. */
  #heatWords() {
    const { photo_position: position, photo_heat_map_url: ofPhoto, sheet_heat_map_url: ofSheet } = this.#explanation ?? {};
    if (!position) return "What matches was not looked for in this sheet, only in the most similar sheet of the first candidates.";
    if (position !== this.#shown.photo + 1) return `The photo that is most similar to this sheet is photo ${position}: choose it to see what matches.`;
    if (this.#missing.has(ofPhoto) || this.#missing.has(ofSheet)) return "What matches is kept for a while only. Identify again to see it.";
    return "Colour shows where photo and sheet are alike to the network.";
  }

  #onMissing(source) {
    this.#missing.add(source);
    this.#renderSwitch();
  }

  #photoView() {
    const position = this.#shown.photo;
    const photo = this.#photos[position];
    const title = this.#photos.length > 1 ? `Your photo ${position + 1}` : "Your photo";
    return { source: photo.url, title, words: organWords(photo.organ) || "from the field", heatMap: this.#heatMap("photo") };
  }

  #sheetView() {
    const sheet = this.#sheet;
    return {
      source: thumbnail(sheet, 2048),
      title: `${this.#candidate.scientific_name}, ${sheetName(sheet)}`,
      heatMap: this.#heatMap("sheet"),
      tools: (close) => sheetTools(sheet, { beforeAsking: close }),
      facts: () => factsOf(sheet.sheet_id),
    };
  }

  #renderPhoto() {
    const view = this.#photoView();
    this.#fill(byId("photo-figure"), view, view.source, {
      caption: [element("b", {}, view.title), element("span", {}, view.words)],
      thumbnails: this.#photos.map((each, index) => ({ source: each.url, title: `Your photo ${index + 1}` })),
      chosen: this.#shown.photo,
      onChoose: (index) => {
        this.#shown.photo = index;
        this.#render();
      },
    });
  }

  #renderSheet() {
    const figure = byId("sheet-figure");
    const sheet = this.#sheet;
    if (!sheet) {
      figure.replaceChildren(element("p", { className: "no-preview" }, "No sheets were sent with this candidate."));
      return;
    }
    const count = counted(this.#candidate.sheets.length, "sheet");
    this.#fill(figure, this.#sheetView(), thumbnail(sheet, 1024), {
      caption: [element("b", {}, sheetName(sheet)), element("span", {}, `similarity ${sheet.similarity.toFixed(2)}`)],
      thumbnails: this.#candidate.sheets.map((each, index) => ({ source: thumbnail(each, 160), title: `Sheet ${index + 1} of ${count}` })),
      chosen: this.#shown.sheet,
      onChoose: (index) => {
        this.#shown.sheet = index;
        if (heatMaps.shown) this.#choosePhoto();
        this.#render();
      },
    });
  }

  #fill(figure, view, source, { caption, thumbnails, chosen, onChoose }) {
    const focused = figure.contains(document.activeElement) ? document.activeElement.parentElement.className : "";
    const heatMap = heatMaps.shown ? view.heatMap : null;
    const marked = heatMap ? ", with what matches" : "";
    const zoom = element("button", { type: "button", className: "mount", "aria-label": `${view.title}${marked}: enlarge` },
      picture(source, view.title, heatMap, () => this.#onMissing(heatMap)));
    zoom.addEventListener("click", () => showLarge([view]));
    figure.replaceChildren(zoom, element("figcaption", {}, ...caption));
    if (thumbnails.length > 1) figure.append(strip(thumbnails, chosen, onChoose));
    if (focused === "strip") figure.querySelector(".strip [aria-pressed=true]")?.focus();
  }
}

function strip(thumbnails, chosen, onChoose) {
  const made = element("div", { className: "strip", role: "group", "aria-label": "Other images" });
  thumbnails.forEach((each, index) => {
    const button = element("button",
      { type: "button", "aria-label": each.title, "aria-pressed": index === chosen ? "true" : "false" },
      image(each.source, "", `${index + 1}`));
    button.addEventListener("click", () => onChoose(index));
    made.append(button);
  });
  return made;
}
