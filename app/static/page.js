import { Answer } from "./answer.js";
import { getJson, identify, ServiceError } from "./api.js";
import { byId, counted } from "./dom.js";
import { Herbarium } from "./herbarium.js";
import { Tray } from "./tray.js";

const TOP_K = 5;

const answer = new Answer();
const herbarium = new Herbarium(showNotice);
const maxPhotos = Number(document.body.dataset.maxPhotos);
const tray = new Tray({ maxPhotos, maxBytes: Number(document.body.dataset.maxUploadBytes), onChange: onPhotosChanged });

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
  notice.textContent = error instanceof ServiceError ? error.message : "Something went wrong on this page. Load it again.";
  notice.hidden = false;
  if (!(error instanceof ServiceError)) console.error(error);
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
  if (running || !tray.photos.length) return;
  const controller = new AbortController();
  const photos = tray.photos;
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
    else complain(error instanceof ServiceError ? error.message : "Something went wrong on this page. Load it again.");
    if (!(error instanceof ServiceError) && error.name !== "AbortError") console.error(error);
  }
}

/** `#/`, `#/species` and `#/species/<id>`; the answer stays while one looks at the herbarium. */
async function route(event) {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  const view = parts[0] === "species" ? (parts[1] ? "sheets" : "species") : "identify";
  for (const id of ["identify", "species", "sheets"]) byId(id).hidden = id !== view;
  for (const link of document.querySelectorAll("[data-view-link]")) {
    const current = link.dataset.viewLink === (view === "identify" ? "identify" : "species");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view !== "identify") {
    byId("notice").hidden = true;
    window.scrollTo(0, 0);
    if (event) byId(`${view}-title`).focus({ preventScroll: true });
  }
  try {
    if (view === "species") await herbarium.showSpecies();
    if (view === "sheets") await herbarium.showSheets(decodeURIComponent(parts[1]));
  } catch (error) {
    showNotice(error);
  }
}

async function tellReadiness() {
  try {
    const ready = await getJson("/readyz");
    byId("bundle").textContent = `${ready.species_count.toLocaleString()} species · collection ${ready.bundle_id}`;
  } catch (error) {
    showNotice(error);
  }
}

byId("max-photos").textContent = ["no", "one", "two", "three", "four", "five"][maxPhotos] ?? String(maxPhotos);
byId("form").addEventListener("submit", onSubmit);
byId("cancel").addEventListener("click", () => running?.abort());
window.addEventListener("hashchange", route);
route();
tellReadiness();
