// A click is lost where the button moved away between the press and the release. What makes things move, and is not
// itself the answer to a click, therefore waits until nothing is pressed.

let isPressed = false;
let waiting = [];

for (const event of ["pointerdown", "mousedown"]) document.addEventListener(event, () => (isPressed = true), true);
for (const event of ["pointerup", "pointercancel", "mouseup", "dragend", "contextmenu"]) document.addEventListener(event, onReleased, true);
window.addEventListener("blur", onReleased);

/** Done at once where nothing is pressed, otherwise after the click that the release makes. */
export function released() {
  return isPressed ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve();
}

function onReleased() {
  isPressed = false;
  // The click follows within the same task.
  setTimeout(() => {
    if (isPressed) return;
    const done = waiting;
    waiting = [];
    for (const each of done) each();
  });
}
