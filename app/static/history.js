import { counted, element, when } from "./dom.js";

const DONE = { add: "added", remove: "removed", restore: "restored", move: "moved", import: "imported" };

/** List items that tell who did what to how many sheets; the same by the same curator in a row is told as one. */
export function historyItems(revisions) {
  const groups = [];
  for (const { by, action, sheets, at } of revisions) {
    const last = groups.at(-1);
    if (last && last.by === by && last.action === action) last.sheets += sheets;
    else groups.push({ by, action, sheets, at });
  }
  return groups.map(({ by, action, sheets, at }) =>
    element("li", {}, element("span", {}, element("b", {}, by), words(action, sheets)), element("time", { dateTime: at }, when(at))));
}

function words(action, sheets) {
  if (DONE[action]) return ` ${DONE[action]} ${counted(sheets, "sheet")}`;
  return sheets ? `: ${action}, ${counted(sheets, "sheet")}` : `: ${action}`;
}
