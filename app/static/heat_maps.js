import { element, image } from "./dom.js";
import { remember, remembered, sessionStorageOrNone } from "./memory.js";

/** Dispatched on the document when heat maps are switched on or off. */
export const HEAT_MAPS_CHANGED = "heat-maps-changed";

/** Dispatched on the document when some are looked for, and when they are found or not. */
export const HEAT_MAPS_FOUND = "heat-maps-found";

export function heatMapsFound() {
  document.dispatchEvent(new CustomEvent(HEAT_MAPS_FOUND));
}

const MEMORY_KEY = "voucher.heat-maps";

/** Whether heat maps are shown; known for as long as the tab is open. */
class HeatMaps {
  #shown = remembered(sessionStorageOrNone(), MEMORY_KEY) === "shown";

  get shown() {
    return this.#shown;
  }

  toggle() {
    this.#shown = !this.#shown;
    remember(sessionStorageOrNone(), MEMORY_KEY, this.#shown ? "shown" : "hidden");
    document.dispatchEvent(new CustomEvent(HEAT_MAPS_CHANGED));
  }
}

export const heatMaps = new HeatMaps();

/** A picture that keeps its proportions within whatever holds it. */
export function picture(source, title) {
  const base = image(source, title);
  const made = element("span", { className: "picture" }, base);
  base.addEventListener("load", () => {
    made.style.setProperty("--ratio", base.naturalWidth / base.naturalHeight);
    made.classList.add("loaded"); // until then it would be seen in wrong proportions
  }, { once: true });
  return made;
}

/**
 * Lays a heat map over a picture once that is there, or takes it off with null. `onMissing` is called when the heat map
 * cannot be had any more.
 */
export function layHeatMap(made, heatMap, onMissing = () => {}) {
  const laid = made.querySelector(".heat");
  if ((laid?.dataset.source ?? null) === heatMap) return;
  laid?.remove();
  if (heatMap) made.append(heatImage(heatMap, onMissing));
}

/** The heat map at `source`, to be laid over the whole of its picture; its caption tells what it shows. */
export function heatImage(source, onMissing) {
  const made = element("img", { className: "heat", src: source, alt: "", decoding: "async", "data-source": source });
  made.addEventListener("error", () => {
    made.remove();
    onMissing();
  });
  return made;
}
