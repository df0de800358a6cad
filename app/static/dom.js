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
  return percentFormat.format(fraction);
}

/** “1 sheet”, “3 sheets”. */
export function counted(count, noun) {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}
