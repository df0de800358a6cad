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
const herbarium = new Herbarium(showNotice);
const identifyForm = new IdentifyForm({ maxPhotos: Number(document.body.dataset.maxPhotos), maxBytes });
const build = new BuildStrip({ onChanges: showRecent });
const curateForm = new CurateForm({ maxBytes, onAdded: () => build.look() });
const versions = new Versions();

function showNotice(error) {
  const notice = byId("notice");
  notice.textContent = errorWords(error);
  notice.hidden = false;
}

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
  build.place(null);
  return fill(view, parts);
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
    if (view === "sheets") await herbarium.showSheets(decodeURIComponent(parts[1]), parts[2] === "removed");
    if (view === "versions") await versions.look();
  } catch (error) {
    showNotice(error);
  }
}

window.addEventListener("hashchange", route);
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
