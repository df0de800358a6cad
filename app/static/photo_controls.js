import { element } from "./dom.js";

/** What a photo may show, as the service calls it and as people do. */
const ORGANS = { leaf: "Leaf", flower: "Flower", fruit: "Fruit", bark: "Bark", habit: "Whole plant", other: "Something else" };

/** What is said of a photo to be shown beside it; empty where nothing is said. */
export function organWords(organ) {
  return ORGANS[organ]?.toLowerCase() ?? "";
}

/** Elements below a photo that is to be sent: what it shows, and its place among the others. */
export function photoControls(tray, item, position, count) {
  const name = `photo ${position + 1}`;
  const select = element("select", { className: "organ", "aria-label": `What ${name} shows (optional)` },
    element("option", { value: "" }, "Shows"),
    ...Object.entries(ORGANS).map(([organ, words]) => element("option", { value: organ, selected: item.organ === organ }, words)));
  select.addEventListener("change", () => (item.organ = select.value));
  if (count === 1) return [select];
  const places = element("div", { className: "places" },
    mover(tray, item, -1, "‹", `Move ${name} forward`, position === 0),
    mover(tray, item, 1, "›", `Move ${name} back`, position === count - 1));
  return [select, places];
}

function mover(tray, item, step, sign, title, disabled) {
  const direction = step < 0 ? "earlier" : "later";
  const button = element("button", { type: "button", className: `place ${direction}`, "aria-label": title, disabled }, sign);
  button.addEventListener("click", () => {
    tray.move(item, step);
    const buttons = [...tray.elementOf(item).querySelectorAll(".place")];
    (buttons.find((each) => each.classList.contains(direction) && !each.disabled) ?? buttons.find((each) => !each.disabled)).focus();
  });
  return button;
}
