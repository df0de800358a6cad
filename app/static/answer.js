import { byId, element, percent, tell } from "./dom.js";
import { Evidence } from "./evidence.js";
import { scientificName } from "./names.js";

const SOURCES = {
  specialist: "The trained classifier decided.",
  generalist: "The herbarium sheets decided.",
  fusion: "Classifier and herbarium sheets were weighed together.",
};

/** Above this part of the probability it is likelier that the plant is of a species that was not asked for. */
const DOUBTFUL_OUTSIDE = 0.5;

/** Shows an answer: who decided, the candidates, and photo and sheets of the chosen candidate side by side. */
export class Answer {
  #section = byId("answer");
  #evidence = new Evidence();
  #candidates = [];

  clear() {
    this.#section.hidden = true;
    this.#evidence.begin([], []);
  }

  /**
   * `body` is that of `POST /v1/identifications`, `photos` are `{ url, organ }`; `among` says in words what was asked
   * for only, empty where nothing was left out.
   */
  show(body, photos, among) {
    this.#candidates = body.candidates;
    const title = byId("answer-title");
    title.replaceChildren(...headline(body));
    tell(byId("outcome"), ...outcomeWords(body));
    tell(byId("restricted"), ...restrictedWords(body, among));
    byId("restricted").classList.toggle("notice", body.probability_outside >= DOUBTFUL_OUTSIDE);
    tell(byId("prediction-set"), ...setWords(body.prediction_set));
    byId("decision").replaceChildren(
      element("b", {}, SOURCES[body.decision.source] ?? `Decided by ${body.decision.source}.`), " ", body.decision.reason);
    byId("candidates").replaceChildren(...this.#candidates.map((candidate, index) => this.#candidateItem(candidate, index)));
    this.#evidence.begin(photos, this.#candidates);
    if (this.#candidates.length) this.#choose(0);
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
    byId("candidates").querySelectorAll("button").forEach((button, position) => {
      button.setAttribute("aria-current", position === index ? "true" : "false");
    });
    this.#evidence.show(this.#candidates[index]);
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

/** That not all species were asked for, and what is likely for the others; nothing where all were. */
function restrictedWords({ probability_outside: outside }, among) {
  if (!among.length) return [];
  const words = ["Only among ", ...among, ": the percentages are of these alone."];
  if (typeof outside !== "number") return words;
  if (outside >= DOUBTFUL_OUTSIDE) return [...words, element("b", {}, ` It is likelier another species: ${percent(outside)} of the probability lies outside.`)];
  return [...words, ` ${percent(outside)} of the probability lies with other species.`];
}

const SET_SHOWN = 8;

/** The set of species with a stated coverage, in words; nothing where none is given. */
function setWords(set) {
  if (!set) return [];
  const coverage = percent(set.coverage);
  if (!set.size) return [`No species is likely enough for a set of ${coverage} coverage: doubt this answer.`];
  const names = set.species.slice(0, SET_SHOWN).flatMap((species, index) => [index ? ", " : "", scientificName(species)]);
  const lastName = set.species.at(-1).scientific_name;
  const more = set.size > SET_SHOWN ? ` and ${(set.size - SET_SHOWN).toLocaleString()} more.` : "";
  return [element("b", {}, `Set of ${coverage} coverage: `), ...names, `${more || lastName.endsWith(".") ? more : "."} ${set.guarantee}`];
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
