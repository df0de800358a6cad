import { byId } from "./dom.js";

const STEPS = [1, 1.5, 2, 3, 4, 6];

/** One image, large, in a dialog: click or + to enlarge, − to shrink, drag or scroll to move, Escape to leave. */
class Viewer {
  #dialog = byId("viewer");
  #stage = byId("viewer-stage");
  #image = byId("viewer-image");
  #step = 0;
  #drag = null;

  constructor() {
    byId("viewer-close").addEventListener("click", () => this.#dialog.close());
    byId("viewer-in").addEventListener("click", () => this.#zoom(this.#step + 1));
    byId("viewer-out").addEventListener("click", () => this.#zoom(this.#step - 1));
    this.#dialog.addEventListener("close", () => this.#image.removeAttribute("src"));
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "+" || event.key === "=") this.#zoom(this.#step + 1);
      if (event.key === "-") this.#zoom(this.#step - 1);
    });
    this.#image.addEventListener("load", () => this.#zoom(0));
    this.#listenForDrags();
  }

  show(source, caption, tools) {
    byId("viewer-caption").replaceChildren(caption);
    byId("viewer-curation").replaceChildren(...tools(() => this.#dialog.close()));
    this.#image.alt = caption;
    this.#image.src = source;
    this.#dialog.showModal();
    this.#stage.focus();
  }

  /** Keeps the point `at` (of the stage, 0 … 1) where it is. */
  #zoom(step, at = { x: 0.5, y: 0.5 }) {
    const stage = this.#stage;
    const point = {
      x: (stage.scrollLeft + at.x * stage.clientWidth) / Math.max(1, this.#image.offsetWidth),
      y: (stage.scrollTop + at.y * stage.clientHeight) / Math.max(1, this.#image.offsetHeight),
    };
    this.#step = Math.min(Math.max(step, 0), STEPS.length - 1);
    const { naturalWidth, naturalHeight } = this.#image;
    const fit = Math.min(stage.clientWidth / naturalWidth, stage.clientHeight / naturalHeight);
    this.#image.style.width = `${Math.round(naturalWidth * fit * STEPS[this.#step])}px`;
    stage.classList.toggle("enlarged", this.#step > 0);
    stage.scrollLeft = point.x * this.#image.offsetWidth - at.x * stage.clientWidth;
    stage.scrollTop = point.y * this.#image.offsetHeight - at.y * stage.clientHeight;
    byId("viewer-out").disabled = this.#step === 0;
    byId("viewer-in").disabled = this.#step === STEPS.length - 1;
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
      this.#zoom(this.#step >= 2 ? 0 : this.#step + 2, at);
    });
    this.#image.draggable = false;
    stage.addEventListener("pointercancel", () => (this.#drag = null));
    stage.addEventListener("pointerleave", () => (this.#drag = null));
  }
}

const viewer = new Viewer();

/** Shows the image at `source` large; `caption` is text. `tools(close)` gives buttons for what it shows. */
export function showLarge(source, caption, tools = () => []) {
  viewer.show(source, caption, tools);
}
