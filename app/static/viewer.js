import { byId, element, errorWords, say, tell } from "./dom.js";
import { HEAT_MAPS_CHANGED, HEAT_MAPS_FOUND, heatMaps } from "./heat_maps.js";
import { Stage } from "./stage.js";

/** One picture in large, or two beside each other, in a dialog: + and − enlarge, Escape leaves. */
class Viewer {
  #dialog = byId("viewer");
  #stages = ["viewer-stage", "viewer-second"].map((id) => new Stage(byId(id), {
    onMoved: (stage) => this.#onMoved(stage),
    onFocus: (stage) => (this.#last = stage),
  }));
  #views = [];
  #areTogether = true;
  /** The stage that was used last. */
  #last = null;
  #facts = 0;

  constructor() {
    byId("viewer-close").addEventListener("click", () => this.#dialog.close());
    byId("viewer-in").addEventListener("click", () => this.#zoomBy(1));
    byId("viewer-out").addEventListener("click", () => this.#zoomBy(-1));
    byId("viewer-heat").addEventListener("click", () => heatMaps.toggle());
    byId("viewer-together").addEventListener("click", () => {
      this.#areTogether = !this.#areTogether;
      this.#renderTools();
      if (this.#areTogether) this.#stages[1].follow(this.#stages[0].place);
    });
    for (const event of [HEAT_MAPS_CHANGED, HEAT_MAPS_FOUND]) {
      document.addEventListener(event, () => this.#dialog.open && this.#renderHeatMaps());
    }
    this.#dialog.addEventListener("close", () => this.#clear());
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "+" || event.key === "=") this.#zoomBy(1);
      if (event.key === "-") this.#zoomBy(-1);
      if (event.key === "0") this.#zoomBy(-Infinity);
    });
  }

  show(views) {
    this.#views = views;
    this.#clear();
    const [first, second] = views;
    byId("viewer-caption").textContent = views.map(({ title }) => title).join(" and ");
    byId("viewer-curation").replaceChildren(...views.flatMap(({ tools }) => (tools && !second ? tools(() => this.#dialog.close()) : [])));
    views.forEach((view, index) => this.#stages[index].show(view));
    byId("viewer-stages").classList.toggle("two", Boolean(second));
    this.#renderHeatMaps();
    this.#dialog.showModal();
    this.#stages[0].focus();
    this.#showFacts(second ? null : first.facts);
  }

  #clear() {
    this.#facts += 1;
    for (const stage of this.#stages) stage.clear();
    tell(byId("viewer-facts"));
  }

  async #showFacts(ask) {
    const asked = (this.#facts += 1);
    if (!ask) return;
    // Takes the room already, so that the picture does not jump.
    tell(byId("viewer-facts"), element("div", {}, element("dt", {}, "This sheet"), element("dd", {}, "…")));
    try {
      const facts = await ask();
      if (asked === this.#facts) tell(byId("viewer-facts"), ...facts);
    } catch (error) {
      if (asked === this.#facts) tell(byId("viewer-facts"), element("div", {}, element("dt", {}, "This sheet"), element("dd", {}, errorWords(error))));
    }
  }

  #renderHeatMaps() {
    this.#views.forEach(({ heatMap, onMissing }, index) => {
      this.#stages[index].lay(heatMaps.shown ? heatMap?.() : null, onMissing);
    });
    const { heatMap, heatWords } = this.#views.find(({ canMatch }) => canMatch) ?? {};
    say(byId("viewer-heat-words"), heatWords && heatMaps.shown && !heatMap() ? heatWords() : "");
    this.#renderTools();
  }

  #renderTools() {
    byId("viewer-heat").hidden = !this.#views.some(({ canMatch }) => canMatch);
    byId("viewer-heat").setAttribute("aria-pressed", String(heatMaps.shown));
    byId("viewer-together").hidden = this.#views.length < 2;
    byId("viewer-together").setAttribute("aria-pressed", String(this.#areTogether));
    const led = this.#led;
    // Not disabled: a button that is would lose the focus, and with it the keys.
    byId("viewer-out").setAttribute("aria-disabled", String(led.every((stage) => stage.isFitted)));
    byId("viewer-in").setAttribute("aria-disabled", String(led.every((stage) => stage.isLargest)));
  }

  /** The stages that keys and buttons move: both, or the one that was used last. */
  get #led() {
    const seen = this.#stages.slice(0, this.#views.length);
    if (this.#areTogether || seen.length < 2) return seen;
    return [seen.includes(this.#last) ? this.#last : seen[0]];
  }

  #zoomBy(steps) {
    const [first] = this.#led;
    first?.zoom(first.step + steps);
  }

  #onMoved(stage) {
    const index = this.#stages.indexOf(stage);
    const other = this.#views.length > 1 ? this.#stages[1 - index] : null;
    if (this.#areTogether) other?.follow(stage.place);
    if (this.#dialog.open) this.#renderTools();
  }
}

const viewer = new Viewer();

/**
 * Shows one or two pictures large, each as `{ source, title }`; besides, where there are such, `heatMap()` gives the
 * address of what lies over it, or null, `heatWords()` why there is none, `tools(close)` buttons for what it shows, and
 * `facts()` promises elements that tell of it. `canMatch` tells whether heat maps can be asked for.
 */
export function showLarge(views) {
  viewer.show(views);
}
