/** Text kept under `key`, or null; a browser may keep nothing. */
export function remembered(storage, key) {
  try {
    return storage?.getItem(key) ?? null;
  } catch {
    return null;
  }
}

/** Keeps text under `key` where the browser allows it. */
export function remember(storage, key, text) {
  try {
    storage?.setItem(key, text);
  } catch {
    // Full, or not allowed: it is known until the page is left.
  }
}

/** The storage of this tab, or null where the browser allows none. */
export function sessionStorageOrNone() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

/** The storage of this browser, or null where it allows none. */
export function localStorageOrNone() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
