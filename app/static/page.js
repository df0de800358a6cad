import { BuildStrip } from "./build.js";
import { CurateForm, showRecent } from "./curate.js";
import { curation } from "./curation.js";
import { byId, errorWords } from "./dom.js";
import { Herbarium } from "./herbarium.js";
import { IdentifyForm } from "./identify.js";
import { readiness } from "./service.js";
import { session, SESSION_CHANGED } from "./session.js";
import { Versions } from "./versions.js";

const maxBytes = Number(document.body.dataset.maxUploadBytes);
const herbarium = new Herbarium({ onError: showNotice, onFine: hideNotice });
const { maxPhotos, maxRequestBytes } = document.body.dataset;
const identifyForm = new IdentifyForm({ maxPhotos: Number(maxPhotos), maxBytes, maxBytesTogether: Number(maxRequestBytes) });
const build = new BuildStrip({ onChanges: showRecent });
const curateForm = new CurateForm({ maxBytes, onAdded: () => build.look() });
const versions = new Versions();

function showNotice(error) {
  const notice = byId("notice");
  notice.textContent = errorWords(error);
  notice.hidden = false;
}

function hideNotice() {
  byId("notice").hidden = true;
}

const TITLES = { identify: "What is this plant?", species: "The herbarium", sheets: "The herbarium", curate: "Add sheets", versions: "Versions" };

/** Where a view was left: how far it was scrolled, and what had the focus. */
const leftAt = new Map();
let seen = "";

const VIEWS = ["identify", "species", "sheets", "curate", "versions"];
const OF_CURATORS = ["curate", "versions"];

/**
 * `#/`, `#/species`, `#/species/<id>`, `#/species/<id>/removed`, `#/curate` and `#/versions`. The answer and what was
 * typed stay while one looks at something else.
 */
function route(event) {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  const named = parts[0] === "species" && parts[1] ? "sheets" : parts[0];
  const view = VIEWS.includes(named) ? named : "identify";
  const focused = document.activeElement;
  if (seen) leftAt.set(seen, { top: window.scrollY, focused: byId(seen).contains(focused) ? focused : null });
  const wasElsewhere = seen !== view;
  seen = view;
  document.title = `${TITLES[view]} – voucher`;
  if (event) hideNotice();
  for (const id of VIEWS) byId(id).hidden = id !== view;
  for (const link of document.querySelectorAll("[data-view-link]")) {
    if (link.dataset.viewLink === (view === "sheets" ? "species" : view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (event && wasElsewhere) enter(view);
  else if (event) window.scrollTo(0, 0);
  build.place(null);
  return fill(view, parts);
}

/** To the answer and to the list of species one comes back where one has left them, to other views at their heads. */
function enter(view) {
  const left = ["identify", "species"].includes(view) ? leftAt.get(view) : null;
  window.scrollTo(0, left?.top ?? 0);
  // What was clicked to come here, such as a link of the head, keeps the focus.
  const isLost = document.activeElement === document.body || document.activeElement.closest("[hidden]");
  if (left?.focused?.isConnected && isLost) left.focused.focus({ preventScroll: true });
  else if (view !== "identify") byId(`${view}-title`).focus({ preventScroll: true });
}

/** Asks for what a view shows, once it is known what one may see. */
async function fill(view, parts) {
  await session.ready;
  if (byId(view).hidden) return;
  const isOfCurators = OF_CURATORS.includes(view);
  if (isOfCurators && !curation.visible) {
    versions.clear();
    showRecent({ latest: [] });
    if (!session.signedIn) session.ask("curate");
    return;
  }
  if (isOfCurators) build.place(byId(view));
  try {
    if (view === "species") await herbarium.showSpecies();
    if (view === "sheets") {
      await herbarium.showSheets(decoded(parts[1]), parts[2] === "removed");
      if (seen === "sheets") document.title = `${byId("sheets-title").textContent} – voucher`;
    }
    if (view === "versions") await versions.look();
  } catch (error) {
    showNotice(error);
  }
}

/** An id out of an address; one that nobody could have written stays as it is, and is then not found. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

window.addEventListener("hashchange", route);
// An address of its own would lead to another view.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
document.addEventListener(SESSION_CHANGED, ({ detail }) => {
  if (detail.isOut) {
    identifyForm.clear();
    curateForm.clear();
    // Elsewhere a key may be needed, and whoever has just signed out is not to be asked for one.
    if (byId("identify").hidden) location.hash = "#/";
  }
  if (!detail.isFirst && !detail.isOut) route();
});
route();
readiness().catch(showNotice);
