import { heatImage } from "./heat_maps.js";

const STEPS = [1, 1.5, 2, 3, 4, 6, 8];

/** A picture that is enlarged by click or key, and moved by dragging, scrolling or the arrow keys. */
export class Stage {
  #stage;
  #picture;
  #image;
  #step = 0;
  #drag = null;
  #onMoved;
  #isLed = false;
  #size = "";

  /**
   * `stage` holds an element of class viewer-picture with the image. `onMoved(this)` is called after each change but
   * those that `follow` makes, `onFocus(this)` when it is about to be used.
   */
  constructor(stage, { onMoved, onFocus }) {
    this.#stage = stage;
    this.#picture = stage.querySelector(".viewer-picture");
    this.#image = stage.querySelector("img");
    this.#onMoved = onMoved;
    this.#image.addEventListener("load", () => {
      this.#picture.classList.remove("broken");
      this.zoom(0);
    });
    this.#image.addEventListener("error", () => this.#image.hasAttribute("src") && this.#picture.classList.add("broken"));
    new ResizeObserver(() => this.#onResized()).observe(stage);
    stage.addEventListener("scroll", () => this.#moved());
    stage.addEventListener("focus", () => onFocus(this));
    this.#listenForDrags();
  }

  show({ source, title }) {
    this.#stage.hidden = false;
    this.#picture.classList.remove("broken");
    this.#picture.dataset.title = title;
    this.#stage.setAttribute("aria-label", `${title}. Plus enlarges, minus makes smaller, arrow keys move.`);
    this.#image.alt = title;
    this.#image.src = source;
    this.#step = 0;
  }

  /** Lays a heat map over the picture, or takes it off with null. */
  lay(heatMap, onMissing = () => {}) {
    this.#picture.querySelector(".heat")?.remove();
    if (heatMap) this.#picture.append(heatImage(heatMap, onMissing));
  }

  clear() {
    this.#stage.hidden = true;
    this.#image.removeAttribute("src");
    this.lay(null);
  }

  focus() {
    this.#stage.focus();
  }

  get step() {
    return this.#step;
  }

  get isFitted() {
    return this.#step === 0;
  }

  get isLargest() {
    return this.#step === STEPS.length - 1;
  }

  /** How large it is, and which point of the picture (0 … 1) is in the middle. */
  get place() {
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.#stage;
    return {
      step: this.#step,
      x: (scrollLeft + clientWidth / 2) / Math.max(clientWidth, this.#picture.offsetWidth),
      y: (scrollTop + clientHeight / 2) / Math.max(clientHeight, this.#picture.offsetHeight),
    };
  }

  /** Goes where another stage is. */
  follow({ step, x, y }) {
    this.#isLed = true;
    if (step !== this.#step) this.zoom(step);
    this.#stage.scrollLeft = x * Math.max(this.#stage.clientWidth, this.#picture.offsetWidth) - this.#stage.clientWidth / 2;
    this.#stage.scrollTop = y * Math.max(this.#stage.clientHeight, this.#picture.offsetHeight) - this.#stage.clientHeight / 2;
    // The events of this scrolling come with the next frame.
    requestAnimationFrame(() => requestAnimationFrame(() => (this.#isLed = false)));
  }

  /** Enlarges to one of the steps; keeps the point `at` (of the stage, 0 … 1) where it is. */
  zoom(step, at = { x: 0.5, y: 0.5 }) {
    const stage = this.#stage;
    const point = {
      x: (stage.scrollLeft + at.x * stage.clientWidth) / Math.max(1, this.#picture.offsetWidth),
      y: (stage.scrollTop + at.y * stage.clientHeight) / Math.max(1, this.#picture.offsetHeight),
    };
    this.#step = Math.min(Math.max(step, 0), STEPS.length - 1);
    const { naturalWidth, naturalHeight } = this.#image;
    if (!naturalWidth) return; // it is not there yet; then it begins fitted
    // Scrollbars, which come and go, are counted in: what is enlarged twice is twice as large.
    const fit = Math.min(stage.offsetWidth / naturalWidth, stage.offsetHeight / naturalHeight);
    this.#picture.style.width = `${Math.round(naturalWidth * fit * STEPS[this.#step])}px`;
    stage.classList.toggle("enlarged", this.#step > 0);
    stage.scrollLeft = point.x * this.#picture.offsetWidth - at.x * stage.clientWidth;
    stage.scrollTop = point.y * this.#picture.offsetHeight - at.y * stage.clientHeight;
    this.#moved();
  }

  #onResized() {
    const size = `${this.#stage.offsetWidth} ${this.#stage.offsetHeight}`;
    if (size === this.#size) return;
    this.#size = size;
    this.zoom(this.#step);
  }

  #moved() {
    if (!this.#isLed) this.#onMoved(this);
  }

  #listenForDrags() {
    const stage = this.#stage;
    stage.addEventListener("pointerdown", (event) => {
      this.#drag = { x: event.clientX, y: event.clientY, left: stage.scrollLeft, top: stage.scrollTop, moved: false };
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.#drag || event.pointerType !== "mouse") return; // a finger scrolls by itself
      const [dx, dy] = [event.clientX - this.#drag.x, event.clientY - this.#drag.y];
      if (Math.hypot(dx, dy) > 4) this.#drag.moved = true;
      stage.scrollLeft = this.#drag.left - dx;
      stage.scrollTop = this.#drag.top - dy;
    });
    stage.addEventListener("click", (event) => {
      const dragged = this.#drag?.moved;
      this.#drag = null;
      if (dragged) return;
      const box = stage.getBoundingClientRect();
      const at = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
      this.zoom(this.#step >= 2 ? 0 : this.#step + 2, at);
    });
    this.#image.draggable = false;
    stage.addEventListener("pointercancel", () => (this.#drag = null));
    stage.addEventListener("pointerleave", () => (this.#drag = null));
  }
}
