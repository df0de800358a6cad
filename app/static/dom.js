import { ServiceError } from "./api.js";

/** The element with this id; the page is broken without it. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}

/**
 * A new element. `properties` are set as DOM properties, those with a dash as attributes; `children` are
 * nodes or text. Text never becomes HTML.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An image that says so when the browser cannot show it (TIFF, a sheet that is gone). */
export function image(source, alternative, instead = "No preview") {
  const made = element("img", { src: source, alt: alternative, decoding: "async" });
  made.addEventListener("error", () => {
    made.replaceWith(element("span", { className: "no-preview" }, instead));
  });
  return made;
}

const percentFormat = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });

/** 0.623 → “62 %”; what is above nothing never reads as nothing. */
export function percent(fraction) {
  if (fraction > 0 && fraction < 0.01) return `< ${percentFormat.format(0.01)}`;
  if (fraction >= 0.995 && fraction < 1 - 1e-9) return `> ${percentFormat.format(0.99)}`;
  return percentFormat.format(fraction);
}

/** “1 sheet”, “3 sheets”. */
export function counted(count, noun) {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}

/** Text with `code` between backticks as an array of nodes and strings. */
export function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** Shows `words` (text or nodes) in an element that is hidden while there are none. */
export function tell(target, ...words) {
  const said = words.filter(Boolean);
  target.replaceChildren(...said);
  target.hidden = said.length === 0;
}

/** Says `words` in an element that stays where it is, so that screen readers hear of it; anew only when they change. */
export function say(target, words) {
  if (target.textContent !== words) target.textContent = words;
}

/** What to say of an error: the service's own words, or that the page is at fault, which the console then tells. */
export function errorWords(error) {
  if (error instanceof ServiceError) return error.message;
  console.error(error);
  return "Something went wrong on this page. Load it again.";
}

const timeFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** “3 May 2026, 14:05”, here and now; what is no time stays as it is. */
export function when(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? iso : timeFormat.format(time);
}
