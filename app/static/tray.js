import { byId, element, image } from "./dom.js";

const ACCEPTED = /^image\/(jpeg|png|webp|tiff|pjpeg|jpg)$/;
const ACCEPTED_NAME = /\.(jpe?g|png|webp|tiff?)$/i;

/** The photos that will be sent: chosen, dropped or pasted, with previews and a way to take each out again. */
export class Tray {
  #photos = [];
  #list = byId("previews");
  #form = byId("form");
  #maxPhotos;
  #maxBytes;
  #onChange;
  #locked = false;

  /** `onChange(photos, complaint)`: `complaint` tells what was left out and why, or is empty. */
  constructor({ maxPhotos, maxBytes, onChange }) {
    this.#maxPhotos = maxPhotos;
    this.#maxBytes = maxBytes;
    this.#onChange = onChange;
    for (const id of ["files", "camera"]) {
      const input = byId(id);
      input.addEventListener("change", () => {
        this.add([...input.files]);
        input.value = ""; // so that the same file can be chosen again
      });
    }
    this.#listenForDrops();
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) {
        event.preventDefault();
        this.add(files);
      }
    });
  }

  /** Photos as `{ file, url }`, in their order. */
  get photos() {
    return [...this.#photos];
  }

  /** While an upload runs nothing is added or taken out. */
  set locked(locked) {
    this.#locked = locked;
    this.#form.classList.toggle("locked", locked);
    for (const control of this.#form.querySelectorAll("input, .remove")) control.disabled = locked;
  }

  add(files) {
    if (this.#locked || !files.length) return;
    const complaints = [];
    for (const file of files) {
      const refusal = this.#refusal(file);
      if (refusal) complaints.push(refusal);
      else this.#photos.push({ file, url: URL.createObjectURL(file) });
    }
    this.#render();
    this.#onChange(this.photos, [...new Set(complaints)].join(" "));
  }

  #refusal(file) {
    if (this.#photos.length >= this.#maxPhotos) return `Only ${this.#maxPhotos} photos can be sent; the rest was left out.`;
    if (file.size === 0) return "One file is empty and was left out.";
    if (file.size > this.#maxBytes) return `One file is larger than ${Math.floor(this.#maxBytes / 2 ** 20)} MB and was left out.`;
    if (!ACCEPTED.test(file.type) && !ACCEPTED_NAME.test(file.name)) {
      return "One file is not a photo and was left out; JPEG, PNG, WebP and TIFF are accepted.";
    }
    return "";
  }

  #remove(photo) {
    if (this.#locked) return;
    const position = this.#photos.indexOf(photo);
    this.#photos.splice(position, 1);
    URL.revokeObjectURL(photo.url);
    this.#render();
    this.#onChange(this.photos, "");
    const left = this.#list.querySelectorAll(".remove");
    (left[Math.min(position, left.length - 1)] ?? byId("files")).focus();
  }

  #render() {
    this.#form.classList.toggle("filled", this.#photos.length > 0);
    this.#list.replaceChildren(
      ...this.#photos.map((photo, index) => {
        const remove = element("button", { type: "button", className: "remove", "aria-label": `Remove photo ${index + 1}` }, "×");
        remove.addEventListener("click", () => this.#remove(photo));
        return element("li", {}, image(photo.url, `Photo ${index + 1}`, `Photo ${index + 1}: no preview`), remove);
      }),
    );
  }

  #listenForDrops() {
    let depth = 0; // dragenter and dragleave also come from every child
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      this.#form.classList.toggle("dragging", depth > 0);
    };
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
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
