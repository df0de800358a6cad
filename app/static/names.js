import { element } from "./dom.js";

/** The name without its authorship: its words up to the first that is neither epithet nor rank. */
export function canonical(name) {
  const words = name.trim().split(/\s+/);
  const isEpithet = (word) => /^[a-z×-]+\.?$/.test(word);
  let end = 1;
  while (end < words.length && isEpithet(words[end])) end += 1;
  return words.slice(0, end).join(" ");
}

/** The name in italics, its authorship upright, as botanists write it. */
export function scientificName({ scientific_name: name }) {
  const plain = canonical(name);
  const authorship = name.trim().replace(/\s+/g, " ").slice(plain.length + 1);
  const written = element("span", { className: "name" }, element("i", {}, plain));
  if (authorship) written.append(" ", element("span", { className: "authorship" }, authorship));
  return written;
}

/** How a herbarium cites the sheet, or its id where nothing better is known. */
export function sheetName(sheet) {
  const codes = [sheet.institution_code, sheet.collection_code, sheet.catalog_number].filter(Boolean);
  return codes.length ? codes.join(" ") : `Sheet ${sheet.sheet_id.slice(0, 8)}`;
}

/** Address of a smaller picture of the sheet: `size` is 160, 320, 640, 1024 or 2048. */
export function thumbnail(sheet, size) {
  return sheet.thumbnail_url.replace(/size=\d+/, `size=${size}`);
}
