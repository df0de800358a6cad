/** “40 seconds”, “3 minutes”; what is left of something is not known more closely. */
export function duration(seconds) {
  if (seconds < 1.5) return "a second";
  if (seconds < 100) return many(seconds, "second");
  if (seconds < 5400) return many(seconds / 60, "minute");
  return many(seconds / 3600, "hour");
}

/** “12 milliseconds”, “1.3 seconds”: how long something took. */
export function timeTaken(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} seconds`;
  return many(Math.max(1, milliseconds), "millisecond");
}

function many(count, unit) {
  const whole = Math.round(count);
  return `${whole.toLocaleString()} ${unit}${whole === 1 ? "" : "s"}`;
}
