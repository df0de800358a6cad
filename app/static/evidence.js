import { byId, counted, element, image, say } from "./dom.js";
import { HEAT_MAPS_CHANGED, HEAT_MAPS_FOUND, heatMaps, layHeatMap, picture } from "./heat_maps.js";
import { canMatch, Matches } from "./matches.js";
import { scientificName, sheetName, thumbnail } from "./names.js";
import { organWords } from "./photo_controls.js";
import { session } from "./session.js";
import { sheetTools } from "./sheet_actions.js";
import { factsOf } from "./sheet_facts.js";
import { showLarge } from "./viewer.js";

/** A photo and a sheet of one candidate side by side, with what matches in both, and both in large. */
export class Evidence {
  #photos = [];
  #candidate = null;
  #shown = { photo: 0, sheet: 0 };
  #matches = new Matches();

  constructor() {
    byId("heat-toggle").addEventListener("click", () => heatMaps.toggle());
    byId("compare-large").addEventListener("click", () => showLarge([this.#photoView(), this.#sheetView()]));
    document.addEventListener(HEAT_MAPS_CHANGED, () => {
      this.#matches.forgetFailures();
      this.#renderIfAny();
    });
    document.addEventListener(HEAT_MAPS_FOUND, () => this.#renderIfAny());
  }

  /** Begins with another answer; `photos` as `{ file, url, organ }`. */
  begin(photos, candidates) {
    this.#photos = photos;
    this.#candidate = null;
    this.#shown = { photo: 0, sheet: 0 };
    this.#matches.begin(photos);
    byId("evidence").hidden = candidates.length === 0;
  }

  /** Compares with another candidate. */
  show(candidate) {
    this.#candidate = candidate;
    this.#shown.sheet = 0;
    byId("evidence-title").replaceChildren("Compare with ", scientificName(candidate));
    byId("evidence-more").replaceChildren(
      element("a", { href: `#/species/${encodeURIComponent(candidate.species_id)}` }, "All sheets of this species"));
    this.#render();
  }

  get #sheet() {
    return this.#candidate.sheets[this.#shown.sheet] ?? null;
  }

  /** What is known of why the photo and the sheet that are seen are alike; null where nothing is. */
  get #match() {
    return this.#sheet && this.#matches.of(this.#shown.photo, this.#sheet.sheet_id);
  }

  get #isLooking() {
    return Boolean(this.#sheet) && this.#matches.isLookingFor(this.#shown.photo, this.#sheet.sheet_id);
  }

  #renderIfAny() {
    if (this.#candidate) this.#render();
  }

  #render() {
    if (heatMaps.shown && canMatch && this.#sheet) this.#matches.lookFor(this.#shown.photo, this.#sheet.sheet_id);
    this.#renderPhoto();
    this.#renderSheet();
    this.#renderSwitch();
    byId("compare-large").hidden = !this.#sheet;
  }

  #renderSwitch() {
    byId("heat-toggle").hidden = !canMatch || !this.#sheet;
    byId("heat-toggle").setAttribute("aria-pressed", String(heatMaps.shown));
    byId("heat-toggle").setAttribute("aria-busy", String(heatMaps.shown && this.#isLooking));
    say(byId("heat-words"), heatMaps.shown ? this.#heatWords() : "");
    byId("heat-legend").hidden = !heatMaps.shown || !this.#match?.photo;
  }

  /** What is to be said of the heat maps; what they mean stands below them. */
  #heatWords() {
    if (!canMatch || !this.#sheet) return "";
    if (this.#isLooking) return "Looking for what matches …";
    if (!this.#match) return "";
    const cost = session.isCounted ? " Each photo and sheet that is looked at so counts as one identification." : "";
    return this.#match.words ?? `Colour shows where photo and sheet are alike to the network.${cost}`;
  }

  #photoView() {
    const position = this.#shown.photo;
    const photo = this.#photos[position];
    const title = this.#photos.length > 1 ? `Your photo ${position + 1}` : "Your photo";
    return {
      source: photo.url, title, words: organWords(photo.organ) || "from the field", ...this.#heat("photo"),
    };
  }

  /** Of a view of one side, photo or sheet: its heat map, and what is to be said of it. */
  #heat(side) {
    return {
      canMatch: canMatch && Boolean(this.#sheet),
      heatMap: () => this.#match?.[side] ?? null,
      heatWords: () => this.#heatWords(),
      onMissing: () => this.#matches.miss(this.#shown.photo, this.#sheet.sheet_id),
    };
  }

  #sheetView() {
    const sheet = this.#sheet;
    return {
      source: thumbnail(sheet, 2048),
      title: `${this.#candidate.scientific_name}, ${sheetName(sheet)}`,
      ...this.#heat("sheet"),
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
        this.#render();
      },
    });
  }

  #fill(figure, view, source, { caption, thumbnails, chosen, onChoose }) {
    const stripHadFocus = figure.querySelector(".strip")?.contains(document.activeElement);
    // The picture that is seen already stays as it is: it neither flickers nor loses the focus.
    const seen = figure.querySelector(".mount");
    const isSame = seen?.dataset.source === source;
    const zoom = isSame ? seen : element("button", { type: "button", className: "mount", "data-source": source }, picture(source, view.title));
    const heatMap = heatMaps.shown ? view.heatMap() : null;
    layHeatMap(zoom.querySelector(".picture"), heatMap, view.onMissing);
    zoom.setAttribute("aria-label", `${view.title}${heatMap ? ", with what matches" : ""}: enlarge`);
    zoom.onclick = () => showLarge([view]);
    if (!isSame) figure.replaceChildren(zoom);
    for (const other of [...figure.children]) if (other !== zoom) other.remove();
    figure.append(element("figcaption", {}, ...caption));
    if (thumbnails.length > 1) figure.append(strip(thumbnails, chosen, onChoose));
    if (stripHadFocus) figure.querySelector(".strip [aria-pressed=true]")?.focus();
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
