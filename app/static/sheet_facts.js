import { element, when } from "./dom.js";
import { sheetNow } from "./sheet_actions.js";

/** What is known of a sheet, as elements of a list of terms. Throws `ServiceError`. */
export async function factsOf(sheetId) {
  return sheetFacts(await sheetNow(sheetId));
}

/** What is known of a sheet as `/v1/sheets/…` has it, as elements of a list of terms. */
export function sheetFacts(sheet) {
  const size = `${sheet.width.toLocaleString()} × ${sheet.height.toLocaleString()} pixels`;
  const facts = [
    ["Institution", sheet.institution_code],
    ["Collection", sheet.collection_code],
    ["Catalogue number", sheet.catalog_number],
    ["Licence", sheet.license ?? "not stated"],
    ["Rights holder", sheet.rights_holder],
    ["Added", sheet.added_at && when(sheet.added_at)],
    ["Image", element("a", { href: sheet.image_url, target: "_blank", rel: "noopener" }, size, element("span", { className: "visually-hidden" }, ", in full size, in a new tab"))],
  ];
  return facts
    .filter(([, value]) => value)
    .map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
}
