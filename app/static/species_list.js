import { getJson } from "./api.js";
import { canonical } from "./names.js";

const PAGE = 500;
const BELOW_SPECIES = /\s(subsp|ssp|var|subvar|f|cv)\.?\s/i;

let loading = null;

/**
 * All species of the collection as a `SpeciesList`, read once. `onProgress` gets the part that is there, 0 … 1. Throws
 * `ServiceError`; it is then read anew when it is asked for again.
 */
export function allSpecies(onProgress = () => {}) {
  loading ??= read(onProgress).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

/** Has the list read anew when it is asked for again. */
export function forgetSpecies() {
  loading = null;
}

async function read(onProgress) {
  const found = [];
  for (;;) {
    const { species, total } = await getJson(`/v1/species?${new URLSearchParams({ limit: PAGE, offset: found.length })}`);
    found.push(...species);
    if (!species.length || found.length >= total) return new SpeciesList(found);
    onProgress(found.length / total);
  }
}

/** Species by what people call them. */
export class SpeciesList {
  #species;
  #taxa = new Map();
  #named = new Map();

  /** `species` as `/v1/species` has them. */
  constructor(species) {
    this.#species = species;
    for (const each of species) {
      for (const rank of ["family", "genus"]) if (each[rank]) this.#count(rank, each[rank], each);
      for (const name of new Set([each.species_id, each.scientific_name, canonical(each.scientific_name)])) this.#name(name, each);
    }
  }

  /**
   * Genera and families that have `typed` in their name, as `{ rank, name, count }`: those that begin with it first.
   * `count` is of species that answers can name.
   */
  taxa(typed) {
    const wanted = folded(typed);
    return [...this.#taxa.values()]
      .filter(({ key, count }) => count && key.includes(wanted))
      .sort((a, b) => b.key.startsWith(wanted) - a.key.startsWith(wanted) || a.key.localeCompare(b.key));
  }

  /**
   * What a pasted checklist is about: `{ species, absent, unknown }`, the species that answers can name, those of the
   * collection that they cannot yet, and the entries that are no name or id of any. One entry a line, or several
   * separated by commas, semicolons or tabs.
   */
  checklist(text) {
    const species = new Map();
    const absent = new Map();
    const unknown = [];
    for (const entry of text.split(/[\n;\t]/).flatMap((line) => (this.#find(line) ? [line] : line.split(",")))) {
      const found = this.#find(entry);
      if (!found && entry.trim()) unknown.push(entry.trim());
      for (const each of found ?? []) (each.in_index === false ? absent : species).set(each.species_id, each);
    }
    return { species: [...species.values()], absent: [...absent.values()], unknown };
  }

  /** Species that answers can name of any of these taxa. */
  ofTaxa(taxa) {
    return this.#species.filter((each) => each.in_index !== false && taxa.some(({ rank, name }) => each[rank] === name));
  }

  #count(rank, name, { in_index: isKnown }) {
    const id = `${rank} ${name}`;
    const taxon = this.#taxa.get(id) ?? { rank, name, key: folded(name), count: 0 };
    if (isKnown !== false) taxon.count += 1;
    this.#taxa.set(id, taxon);
  }

  #name(name, species) {
    const key = folded(name);
    this.#named.set(key, [...(this.#named.get(key) ?? []), species]);
  }

  /** The species of this name, with or without its authorship, or of this id; undefined where there is none. */
  #find(entry) {
    const exact = this.#named.get(folded(entry));
    // With an author in its middle, the name of a subspecies would be cut down to that of its species.
    return exact || BELOW_SPECIES.test(entry) || !entry.trim() ? exact : this.#named.get(folded(canonical(entry)));
  }
}

function folded(text) {
  return text.normalize("NFC").trim().replace(/\s+/g, " ").toLowerCase();
}
