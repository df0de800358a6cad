import { byId, element, image } from "./dom.js";

const ACCEPTED = /^image\/(jpeg|png|webp|tiff|pjpeg|jpg)$/;
const ACCEPTED_NAME = /\.(jpe?g|png|webp|tiff?)$/i;

const HEIC = /^image\/hei[cf]/;
const HEIC_NAME = /\.hei[cf]$/i;

/** What surrounds the images in a request, and is counted with them. */
const FORM_BYTES = 64 * 1024;

function megabytes(bytes) {
  return Math.floor(bytes / 2 ** 20);
}

/** The images that will be sent: chosen, dropped or pasted, with previews and a way to take each out again. */
export class Tray {
  #items = [];
  #form;
  #list;
  #inputs;
  #noun;
  #most;
  #maxBytes;
  #maxBytesTogether;
  #onChange;
  #controls;
  #locked = false;

  /**
   * `form`, `list` and `inputs` are ids; `noun` is what an image is called; at most `most` are taken, each of at most
   * `maxBytes`, and all of them with `maxBytesTogether`.
   * `onChange(items, complaint)`: `complaint` tells what was left out and why, or is empty. `controls(item, position,
   * count)` gives more elements for below an image.
   */
  constructor({ form, list, inputs, noun, most, maxBytes, maxBytesTogether = Infinity, onChange, controls = () => [] }) {
    this.#form = byId(form);
    this.#list = byId(list);
    this.#inputs = inputs.map(byId);
    this.#noun = noun;
    this.#most = most;
    this.#maxBytes = maxBytes;
    this.#maxBytesTogether = maxBytesTogether;
    this.#onChange = onChange;
    this.#controls = controls;
    for (const input of this.#inputs) {
      input.addEventListener("change", () => {
        this.add([...input.files]);
        input.value = ""; // so that the same file can be chosen again
      });
    }
    this.#listenForDrops();
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length && this.#isOpen) {
        event.preventDefault();
        this.add(files);
      }
    });
  }

  /** Images as `{ file, url }`, in their order. */
  get items() {
    return [...this.#items];
  }

  /** While an upload runs nothing is added or taken out. */
  set locked(locked) {
    this.#locked = locked;
    this.#form.classList.toggle("locked", locked);
    for (const input of this.#inputs) input.disabled = locked;
    this.#render();
  }

  add(files) {
    if (this.#locked || !files.length) return;
    const complaints = [];
    for (const file of files) {
      const refusal = this.#refusal(file);
      if (refusal) complaints.push(refusal);
      else this.#items.push({ file, url: URL.createObjectURL(file), note: "" });
    }
    this.#changed([...new Set(complaints)].join(" "));
  }

  /** Takes out an image that has been sent. */
  take(item) {
    const position = this.#items.indexOf(item);
    if (position < 0) return;
    this.#items.splice(position, 1);
    URL.revokeObjectURL(item.url);
    this.#render();
  }

  /** Takes out all images. */
  clear() {
    for (const { url } of this.#items.splice(0)) URL.revokeObjectURL(url);
    this.#changed("");
  }

  /** Moves an image by so many places; it ends at the first or last. */
  move(item, step) {
    const from = this.#items.indexOf(item);
    const to = Math.min(Math.max(from + step, 0), this.#items.length - 1);
    if (this.#locked || to === from) return;
    this.#items.splice(to, 0, ...this.#items.splice(from, 1));
    this.#changed("");
  }

  /** The list item that shows an image. */
  elementOf(item) {
    return this.#list.children[this.#items.indexOf(item)];
  }

  /** Says below an image what is wrong with it; nothing takes that away. */
  note(item, words) {
    item.note = words;
    this.#render();
  }

  /** Takes photos only while its view is seen and no dialog lies over it. */
  get #isOpen() {
    return this.#form.offsetParent !== null && !document.querySelector("dialog[open]");
  }

  #refusal(file) {
    if (this.#items.length >= this.#most) return `Only ${this.#most} ${this.#noun}s can be sent at one time; the rest was left out.`;
    if (file.size === 0) return "One file is empty and was left out.";
    if (file.size > this.#maxBytes) return `One file is larger than ${megabytes(this.#maxBytes)} MB and was left out.`;
    if (HEIC.test(file.type) || HEIC_NAME.test(file.name)) {
      return "One file is an HEIC photo, which cannot be read here, and was left out: save it as JPEG, or take it here with the camera.";
    }
    if (!ACCEPTED.test(file.type) && !ACCEPTED_NAME.test(file.name)) {
      return `One file is not a ${this.#noun} and was left out; JPEG, PNG, WebP and TIFF are accepted.`;
    }
    const together = this.#items.reduce((sum, item) => sum + item.file.size, file.size + FORM_BYTES);
    if (together > this.#maxBytesTogether) {
      return `All ${this.#noun}s together may have ${megabytes(this.#maxBytesTogether)} MB; what was more was left out. Smaller copies will do.`;
    }
    return "";
  }

  #remove(item) {
    if (this.#locked) return;
    const position = this.#items.indexOf(item);
    this.take(item);
    this.#changed("");
    const left = this.#list.querySelectorAll(".remove");
    (left[Math.min(position, left.length - 1)] ?? this.#inputs[0]).focus();
  }

  #changed(complaint) {
    this.#render();
    this.#onChange(this.items, complaint);
  }

  #render() {
    this.#form.classList.toggle("filled", this.#items.length > 0);
    this.#list.replaceChildren(...this.#items.map((item, index) => this.#listItem(item, index)));
  }

  #listItem(item, index) {
    const name = `${this.#noun} ${index + 1}`;
    const title = name.charAt(0).toUpperCase() + name.slice(1);
    const remove = element("button", { type: "button", className: "remove", "aria-label": `Remove ${name}` }, "×");
    remove.addEventListener("click", () => this.#remove(item));
    const note = item.note ? element("p", { className: "preview-note" }, item.note) : null;
    const preview = image(item.url, title, `${title}: no preview`);
    const made = element("li", { className: item.note ? "refused" : "" }, element("div", { className: "preview" }, preview, remove),
      ...this.#controls(item, index, this.#items.length), note);
    for (const control of made.querySelectorAll("button, select")) control.disabled ||= this.#locked;
    return made;
  }

  #listenForDrops() {
    let depth = 0; // dragenter and dragleave also come from every child
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      this.#form.classList.toggle("dragging", depth > 0);
    };
    const carriesFiles = (event) => this.#isOpen && event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => carriesFiles(event) && mark(1));
    document.addEventListener("dragleave", (event) => carriesFiles(event) && mark(-1));
    document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      mark(-depth);
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
  }
}
