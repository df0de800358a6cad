import { Answer } from "./answer.js";
import { identify } from "./api.js";
import { BuildStrip } from "./build.js";
import { CurateForm, showRecent } from "./curate.js";
import { byId, counted, errorWords } from "./dom.js";
import { Herbarium } from "./herbarium.js";
import { readiness } from "./service.js";
import { Tray } from "./tray.js";
import { Versions } from "./versions.js";

const TOP_K = 5;

const answer = new Answer();
const herbarium = new Herbarium(showNotice);
const maxPhotos = Number(document.body.dataset.maxPhotos);
const maxBytes = Number(document.body.dataset.maxUploadBytes);
const tray = new Tray({
  form: "form", list: "previews", inputs: ["files", "camera"],
  noun: "photo", most: maxPhotos, maxBytes, onChange: onPhotosChanged,
});
const build = new BuildStrip({ onChanges: showRecent });
new CurateForm({ maxBytes, onAdded: () => build.look() });
const versions = new Versions();

let running = null;

function onPhotosChanged(photos, complaint) {
  byId("submit").disabled = photos.length === 0;
  say(photos.length ? `${counted(photos.length, "photo")} chosen` : "");
  complain(complaint);
  answer.clear();
}

function say(words) {
  byId("status").textContent = words;
}

function complain(words) {
  const error = byId("error");
  error.textContent = words;
  error.hidden = !words;
}

function showNotice(error) {
  const notice = byId("notice");
  notice.textContent = errorWords(error);
  notice.hidden = false;
}

function setRunning(controller) {
  running = controller;
  tray.locked = Boolean(controller);
  byId("submit").hidden = byId("submit").disabled = Boolean(controller);
  byId("cancel").hidden = !controller;
  byId("progress").hidden = !controller;
  if (controller) byId("cancel").focus();
}

function onProgress(part) {
  const progress = byId("progress");
  if (part < 1) {
    progress.value = part;
    say(`Sending: ${Math.round(100 * part)} %`);
  } else {
    progress.removeAttribute("value");
    say("Comparing with the herbarium …");
  }
}

async function onSubmit(event) {
  event.preventDefault();
  if (running || !tray.items.length) return;
  const controller = new AbortController();
  const photos = tray.items;
  complain("");
  answer.clear();
  setRunning(controller);
  onProgress(0);
  try {
    const body = await identify(photos.map(({ file }) => file), { topK: TOP_K, signal: controller.signal, onProgress });
    say(`Answered in ${(body.milliseconds / 1000).toFixed(1)} seconds`);
    setRunning(null);
    answer.show(body, photos);
  } catch (error) {
    setRunning(null);
    byId("submit").focus();
    say("");
    if (error.name === "AbortError") say("Cancelled.");
    else complain(errorWords(error));
  }
}

const VIEWS = ["identify", "species", "sheets", "curate", "versions"];

/**
 * `#/`, `#/species`, `#/species/<id>`, `#/species/<id>/removed`, `#/curate` and `#/versions`. The answer and what was
 * typed stay while one looks at something else.
 */
async function route(event) {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  const named = parts[0] === "species" && parts[1] ? "sheets" : parts[0];
  const view = VIEWS.includes(named) ? named : "identify";
  for (const id of VIEWS) byId(id).hidden = id !== view;
  for (const link of document.querySelectorAll("[data-view-link]")) {
    if (link.dataset.viewLink === (view === "sheets" ? "species" : view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view !== "identify") {
    byId("notice").hidden = true;
    window.scrollTo(0, 0);
    if (event) byId(`${view}-title`).focus({ preventScroll: true });
  }
  build.place(["curate", "versions"].includes(view) ? byId(view) : null);
  try {
    if (view === "species") await herbarium.showSpecies();
    if (view === "sheets") await herbarium.showSheets(decodeURIComponent(parts[1]), parts[2] === "removed");
    if (view === "versions") await versions.look();
  } catch (error) {
    showNotice(error);
  }
}

byId("max-photos").textContent = ["no", "one", "two", "three", "four", "five"][maxPhotos] ?? String(maxPhotos);
byId("form").addEventListener("submit", onSubmit);
byId("cancel").addEventListener("click", () => running?.abort());
window.addEventListener("hashchange", route);
route();
readiness().catch(showNotice);
