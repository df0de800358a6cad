import { getJson, requestJson } from "./api.js";
import { ask } from "./ask.js";
import { curation } from "./curation.js";
import { byId, counted, element, errorWords } from "./dom.js";
import { scientificName, sheetName } from "./names.js";

export const SHEETS_CHANGED = "sheets-changed";

const WITH_THE_NEXT_BUILD = "Answers follow with the next build.";

/**
 * “Move …” and “Remove” for a sheet, or nothing for those who may not curate. `beforeAsking` runs first, such as to
 * leave the large view.
 */
export function sheetTools(sheet, { beforeAsking = () => {} } = {}) {
  if (!curation.allowed) return [];
  const name = sheetName(sheet);
  const move = element("button", { type: "button", className: "link", "aria-label": `Move ${name} to another species …` }, "Move …");
  const remove = element("button", { type: "button", className: "link danger", "aria-label": `Remove ${name}` }, "Remove");
  // What is shown may be older than what others have done since.
  const begin = async (askAbout) => {
    const now = await sheetNow(sheet.sheet_id);
    beforeAsking();
    if (now.removed) toast(`${name} was removed already.`, null);
    else await askAbout(now);
  };
  move.addEventListener("click", () => attempt(() => begin(askToMove)));
  remove.addEventListener("click", () => attempt(() => begin(askToRemove)));
  return [move, remove];
}

/** A button that takes a removed sheet back into the collection; nothing for those who may not curate. */
export function restoreTool(sheet) {
  if (!curation.allowed) return [];
  const restore = element("button", { type: "button", className: "link", "aria-label": `Restore ${sheetName(sheet)}` }, "Restore");
  restore.addEventListener("click", () => attempt(() => restoreSheet(sheet)));
  return [restore];
}

async function askToRemove(sheet) {
  const removed = await ask({
    title: "Remove this sheet?",
    words: [
      element("b", {}, sheetName(sheet)), ", ", scientificName(sheet), ", leaves the collection. ",
      "Answers still name it until the next build. It can be restored until the files of removed sheets are deleted.",
    ],
    yes: "Remove it",
    act: () => removeSheet(sheet),
  });
  if (removed) toast(`${sheetName(sheet)} was removed. ${WITH_THE_NEXT_BUILD}`, () => restoreSheet(sheet));
}

async function askToMove(sheet) {
  const moved = await ask({
    title: "Move to another species",
    words: [
      element("b", {}, sheetName(sheet)), ", now ", scientificName(sheet), ". What is determined is the plant: all sheets of ",
      "the same specimen move along. Answers follow with the next build.",
    ],
    yes: "Move it",
    asksSpecies: true,
    act: async (species) => ({ species, sheets: await moveSheet(sheet, species.species_id) }),
  });
  if (!moved) return;
  const others = moved.sheets.length - 1;
  const along = others > 0 ? ` with ${counted(others, "other sheet")} of its specimen` : "";
  toast(`${sheetName(sheet)} was moved to ${moved.species.scientific_name}${along}. ${WITH_THE_NEXT_BUILD}`, () =>
    moveSheet(sheet, sheet.species_id));
}

async function removeSheet(sheet) {
  const who = curation.name ? `?${new URLSearchParams({ curator: curation.name })}` : "";
  await curation.attempt(() => requestJson("DELETE", `${address(sheet)}${who}`));
  announce([sheet.sheet_id]);
  return true;
}

async function restoreSheet(sheet) {
  await curation.attempt(() => requestJson("POST", `${address(sheet)}/restore`, { curator: curation.name }));
  announce([sheet.sheet_id]);
  return true;
}

/** The sheets that moved: all of the specimen. */
async function moveSheet(sheet, speciesId) {
  const change = { species_id: speciesId, curator: curation.name };
  const { sheets } = await curation.attempt(() => requestJson("PATCH", address(sheet), change));
  announce(sheets.map((each) => each.sheet_id));
  return sheets;
}

function address(sheet) {
  return `/v1/sheets/${encodeURIComponent(sheet.sheet_id)}`;
}

/** Whoever shows one of these sheets shows it anew. */
function announce(sheetIds) {
  document.dispatchEvent(new CustomEvent(SHEETS_CHANGED, { detail: { sheetIds } }));
}

/** A sheet as it is now. Throws `ServiceError`. */
export function sheetNow(sheetId) {
  return getJson(`/v1/sheets/${encodeURIComponent(sheetId)}`);
}

async function attempt(change) {
  try {
    await change();
  } catch (error) {
    toast(errorWords(error), null);
  }
}

let undo = null;
/** What had the focus before the words came. */
let before = null;

/** What was just done, with a way back; it stays until it is closed or something else is done. */
function toast(words, undoIt) {
  undo = undoIt;
  if (!byId("toast").contains(document.activeElement)) before = document.activeElement;
  byId("toast").hidden = false;
  byId("toast-words").textContent = words;
  byId("toast-undo").hidden = !undoIt;
  (undoIt ? byId("toast-undo") : byId("toast-close")).focus();
}

/** Closes it; the focus goes back, or to where what had it has been. */
function closeToast() {
  hideToast();
  if (before?.isConnected && before.offsetParent && before !== document.body) before.focus();
  else byId("main").focus({ preventScroll: true });
}

function hideToast() {
  byId("toast").hidden = true;
  byId("toast-words").textContent = "";
}

byId("toast-close").addEventListener("click", closeToast);
byId("toast-undo").addEventListener("click", () =>
  attempt(async () => {
    await undo();
    closeToast();
  }));
window.addEventListener("hashchange", hideToast);
