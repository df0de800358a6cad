import { byId, counted, element, image, percent } from "./dom.js";
import { scientificName, sheetName, thumbnail } from "./names.js";
import { sheetTools } from "./sheet_actions.js";
import { showLarge } from "./viewer.js";

const SOURCES = {
  specialist: "The trained classifier decided.",
  generalist: "The herbarium sheets decided.",
  fusion: "Classifier and herbarium sheets were weighed together.",
};

/** Shows an answer: who decided, the candidates, and photo and sheets of the chosen candidate side by side. */
export class Answer {
  #section = byId("answer");
  #photos = [];
  #candidates = [];
  #shown = { candidate: 0, photo: 0, sheet: 0 };

  clear() {
    this.#section.hidden = true;
    this.#photos = [];
  }

  /** `photos` as `{ url }`; `body` is that of `POST /v1/identifications`. */
  show(body, photos) {
    this.#photos = photos;
    this.#candidates = body.candidates;
    this.#shown = { candidate: 0, photo: 0, sheet: 0 };
    const [first] = body.candidates;
    const title = byId("answer-title");
    title.replaceChildren(...headline(body));
    const outcome = byId("outcome");
    outcome.replaceChildren(...outcomeWords(body));
    outcome.hidden = !outcome.hasChildNodes();
    const set = byId("prediction-set");
    set.replaceChildren(...setWords(body.prediction_set));
    set.hidden = !set.hasChildNodes();
    byId("decision").replaceChildren(
      element("b", {}, SOURCES[body.decision.source] ?? `Decided by ${body.decision.source}.`), " ", body.decision.reason);
    byId("candidates").replaceChildren(...this.#candidates.map((candidate, index) => this.#candidateItem(candidate, index)));
    byId("evidence").hidden = !first;
    if (first) this.#choose(0);
    this.#section.hidden = false;
    title.focus({ preventScroll: true });
    scrollTo(this.#section);
  }

  #candidateItem(candidate, index) {
    const bar = element("span", { className: "bar", "aria-hidden": "true" }, element("span"));
    bar.firstChild.style.width = `${100 * candidate.probability}%`;
    const notes = candidateNotes(candidate);
    const button = element("button", { type: "button", className: "candidate" },
      element("span", { className: "candidate-name" }, scientificName(candidate)),
      element("span", { className: "candidate-probability" }, percent(candidate.probability)),
      element("span", { className: "candidate-taxon" }, [candidate.genus, candidate.family].filter(Boolean).join(" · ")),
      element("span", { className: "candidate-similarity" }, similarityWords(candidate.similarity)),
      bar,
      ...notes.map((note) => element("span", { className: "candidate-note" }, note)));
    button.addEventListener("click", () => {
      this.#choose(index);
      // On a phone the evidence is further down than the list.
      if (byId("evidence").getBoundingClientRect().top > window.innerHeight * 0.7) scrollTo(byId("evidence"));
    });
    return element("li", {}, button);
  }

  #choose(index) {
    this.#shown = { ...this.#shown, candidate: index, sheet: 0 };
    byId("candidates").querySelectorAll("button").forEach((button, position) => {
      button.setAttribute("aria-current", position === index ? "true" : "false");
    });
    const candidate = this.#candidates[index];
    byId("evidence-title").replaceChildren("Compare with ", scientificName(candidate));
    byId("evidence-more").replaceChildren(
      element("a", { href: `#/species/${encodeURIComponent(candidate.species_id)}` }, "All sheets of this species"));
    this.#renderPhoto();
    this.#renderSheet();
  }

  #renderPhoto() {
    const position = this.#shown.photo;
    const photo = this.#photos[position];
    const caption = this.#photos.length > 1 ? `Your photo ${position + 1}` : "Your photo";
    fillFigure(byId("photo-figure"), {
      source: photo.url,
      large: photo.url,
      caption: [element("b", {}, caption), element("span", {}, "from the field")],
      title: caption,
      thumbnails: this.#photos.map((each, index) => ({ source: each.url, title: `Your photo ${index + 1}` })),
      chosen: position,
      onChoose: (index) => {
        this.#shown.photo = index;
        this.#renderPhoto();
      },
    });
  }

  #renderSheet() {
    const figure = byId("sheet-figure");
    const candidate = this.#candidates[this.#shown.candidate];
    const sheet = candidate.sheets[this.#shown.sheet];
    if (!sheet) {
      figure.replaceChildren(element("p", { className: "no-preview" }, "No sheets were sent with this candidate."));
      return;
    }
    fillFigure(figure, {
      source: thumbnail(sheet, 1024),
      large: thumbnail(sheet, 2048),
      caption: [element("b", {}, sheetName(sheet)), element("span", {}, similarityWords(sheet.similarity))],
      title: `${candidate.scientific_name}, ${sheetName(sheet)}`,
      tools: (close) => sheetTools(sheet, { beforeAsking: close }),
      thumbnails: candidate.sheets.map((each, index) => ({
        source: thumbnail(each, 160),
        title: `Sheet ${index + 1} of ${counted(candidate.sheets.length, "sheet")}`,
      })),
      chosen: this.#shown.sheet,
      onChoose: (index) => {
        this.#shown.sheet = index;
        this.#renderSheet();
      },
    });
  }
}

/** What the answer comes down to, as a title: a name, a taxon of a higher rank, or none. */
function headline({ outcome, roll_up: taxon, candidates: [first] }) {
  if (!first) return ["No species of this collection fits"];
  if (outcome === "none of these") return ["None of these"];
  if (outcome === "undecided") return ["Too close to call"];
  if (outcome === "species") return [scientificName({ scientific_name: taxon.name })];
  const rank = outcome === "genus" ? "Genus" : "Family";
  return [`${rank} `, element("i", {}, taxon.name), ` (${percent(taxon.probability)})`];
}

function outcomeWords({ outcome, calibrated, candidates: [first] }) {
  if (!first) return [];
  const words = {
    "none of these": ["The plant looks like no species of this collection. Nearest: ", scientificName(first)],
    undecided: ["Not even the family is clear. Most likely: ", scientificName(first)],
    family: ["Species and genera are too close to call. Most likely: ", scientificName(first)],
    genus: ["The species are too close to call. Most likely: ", scientificName(first)],
  }[outcome] ?? [];
  if (calibrated) return words;
  return [...words, words.length ? ". " : "", "The percentages are not calibrated: there were too few photos to learn from."];
}

const SET_SHOWN = 8;

/** The set of species with a stated coverage, in words; nothing where none is given. */
function setWords(set) {
  if (!set) return [];
  const coverage = percent(set.coverage);
  if (!set.size) return [`No species is likely enough for a set of ${coverage} coverage: doubt this answer.`];
  const names = set.species.slice(0, SET_SHOWN).flatMap((species, index) => [index ? ", " : "", scientificName(species)]);
  const more = set.size > SET_SHOWN ? ` and ${(set.size - SET_SHOWN).toLocaleString()} more` : "";
  return [element("b", {}, `Set of ${coverage} coverage: `), ...names, `${more} – ${set.guarantee}`];
}

function scrollTo(target) {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function similarityWords(similarity) {
  return similarity === null ? "no sheets to compare" : `similarity ${similarity.toFixed(2)}`;
}

function candidateNotes(candidate) {
  const notes = [];
  if (!candidate.in_classifier) notes.push("Added after training: found through its sheets alone.");
  else if (!candidate.has_field_photos) {
    notes.push("Known from herbarium sheets only: no field photos were in training, so the percentage is less certain.");
  }
  return notes;
}

function fillFigure(figure, { source, large, caption, title, tools, thumbnails, chosen, onChoose }) {
  const hadFocus = figure.contains(document.activeElement);
  const zoom = element("button", { type: "button", className: "mount", "aria-label": `${title}: enlarge` }, image(source, title));
  zoom.addEventListener("click", () => showLarge(large, title, tools));
  figure.replaceChildren(zoom, element("figcaption", {}, ...caption));
  if (thumbnails.length > 1) {
    const strip = element("div", { className: "strip", role: "group", "aria-label": "Other images" });
    thumbnails.forEach((each, index) => {
      const button = element("button",
        { type: "button", "aria-label": each.title, "aria-pressed": index === chosen ? "true" : "false" },
        image(each.source, "", `${index + 1}`));
      button.addEventListener("click", () => onChoose(index));
      strip.append(button);
    });
    figure.append(strip);
    if (hadFocus) strip.children[chosen].focus();
  }
}
