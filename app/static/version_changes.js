import { getJson } from "./api.js";
import { counted, element, errorWords, tell, when, withCode } from "./dom.js";
import { historyItems } from "./history.js";
import { scientificName } from "./names.js";

const SPECIES_SHOWN = 30;
const HISTORY_SHOWN = 20;

/** What one version holds that another does not, unfolded on demand. */
export class VersionChanges {
  #bundle;
  #others;
  #since = null;
  #content = element("div", { className: "changes-content" });
  #asked = 0;

  /** `others()` gives all bundles, the latest first. */
  constructor(bundle, others) {
    this.#bundle = bundle;
    this.#others = others;
    this.element = element("details", { className: "changes" }, element("summary", {}, "What changed", element("span", { className: "visually-hidden" }, ` in the version of ${when(bundle.created_at)}`)), this.#content);
    this.element.addEventListener("toggle", () => this.element.open && this.#show());
  }

  async #show() {
    const asked = (this.#asked += 1);
    const others = this.#others().filter((each) => each.bundle_id !== this.#bundle.bundle_id && !each.fault);
    const since = this.#since ?? others.find((each) => each.bundle_id === this.#bundle.base)?.bundle_id ?? "";
    const result = element("div", { className: "changes-result", "aria-live": "polite" }, "…");
    this.#content.replaceChildren(...this.#revisions(), this.#choice(others, since), result);
    try {
      const shown = since ? await differenceWords(this.#bundle.bundle_id, since) : [];
      if (asked === this.#asked) tell(result, ...shown);
    } catch (error) {
      if (asked === this.#asked) tell(result, errorWords(error));
    }
  }

  /** Who changed what between the version that this one continues and this one. */
  #revisions() {
    const { revisions } = this.#bundle.changes;
    if (!revisions.length) return [];
    const items = historyItems([...revisions].reverse()).slice(0, HISTORY_SHOWN);
    return [element("h3", { className: "eyebrow" }, "By whom"), element("ul", { className: "recent-list" }, ...items)];
  }

  #choice(others, since) {
    const select = element("select", {},
      element("option", { value: "" }, others.length ? "choose a version" : "there is no other version"),
      ...others.map((each) => element("option", { value: each.bundle_id, selected: each.bundle_id === since },
        `${when(each.created_at)}${each.is_active ? " (in service)" : ""}${each.bundle_id === this.#bundle.base ? " (continued by this one)" : ""}`)));
    select.addEventListener("change", async () => {
      this.#since = select.value;
      await this.#show();
      this.#content.querySelector("select").focus();
    });
    return element("label", { className: "changes-choice" }, "Compared with ", select);
  }
}

/** Elements that tell how `bundleId` differs from `since`. */
async function differenceWords(bundleId, since) {
  const changes = await getJson(`/v1/bundles/${encodeURIComponent(bundleId)}/changes?${new URLSearchParams({ since })}`);
  const bySpecies = countedBySpecies(changes);
  const came = new Set(changes.species_added);
  const went = new Set(changes.species_removed);
  if (!bySpecies.size) return [element("p", {}, "Both hold the same sheets.")];
  const shown = [...bySpecies].slice(0, SPECIES_SHOWN);
  const names = await Promise.all(shown.map(([speciesId]) => speciesLink(speciesId)));
  const rows = shown.map(([speciesId, counts], index) =>
    element("tr", {},
      element("th", { scope: "row" }, names[index], came.has(speciesId) ? element("span", { className: "badge good" }, "New") : null,
        went.has(speciesId) ? element("span", { className: "badge bad" }, "Gone") : null),
      ...Object.values(counts).map((count) => element("td", {}, count ? count.toLocaleString() : "–"))));
  const titles = ["Species", "Added", "Removed", "Moved here", "Moved away"];
  const head = element("tr", {}, ...titles.map((words) => element("th", { scope: "col" }, words)));
  const { counts } = changes;
  const summary = `${counted(counts.added, "sheet")} added, ${counts.removed.toLocaleString()} removed, ${counts.moved.toLocaleString()} moved; ` +
    `${counts.species_added.toLocaleString()} species came, ${counts.species_removed.toLocaleString()} went.`;
  const isCut = bySpecies.size > shown.length || ["added", "removed", "moved"].some((kind) => changes[kind].length < counts[kind]);
  return [
    element("p", {}, summary),
    element("div", { className: "table", tabIndex: 0, role: "group", "aria-label": "Changes of each species" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))),
    isCut ? element("p", { className: "hint" }, ...withCode("Not all is listed; `voucher bundles diff` tells more.")) : null,
  ];
}

/** Sheets added, removed and moved of each species; those that came or went are first, so that they are never cut off. */
function countedBySpecies({ added, removed, moved, species_added: came, species_removed: went }) {
  const counts = new Map();
  const add = (speciesId, kind) => {
    const known = counts.get(speciesId) ?? { added: 0, removed: 0, movedHere: 0, movedAway: 0 };
    if (kind) known[kind] += 1;
    counts.set(speciesId, known);
  };
  for (const speciesId of [...came, ...went]) add(speciesId, null);
  for (const { species_id: speciesId } of added) add(speciesId, "added");
  for (const { species_id: speciesId } of removed) add(speciesId, "removed");
  for (const { species_id: speciesId, previous_species_id: previous } of moved) {
    add(speciesId, "movedHere");
    add(previous, "movedAway");
  }
  return counts;
}

async function speciesLink(speciesId) {
  const species = await getJson(`/v1/species/${encodeURIComponent(speciesId)}`).catch(() => ({ scientific_name: speciesId }));
  return element("a", { href: `#/species/${encodeURIComponent(speciesId)}` }, scientificName(species));
}
