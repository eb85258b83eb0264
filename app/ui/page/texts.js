// The texts of the page, in the person's language.

let catalogue = {};
let locale = "en";

export function learn(language, texts) {
  catalogue = texts;
  locale = language;
}

export function t(key, values = {}) {
  const words = catalogue[key];
  if (words === undefined) throw new Error(`no text ${key}`);
  return words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(value);
export const moment = (seconds) =>
  new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(seconds * 1000);

// The side bar's heading for a conversation of that time
export function day(seconds) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const then = new Date(seconds * 1000).setHours(0, 0, 0, 0);
  const days = Math.round((midnight - then) / 86_400_000);
  if (days <= 0) return t("today");
  if (days === 1) return t("yesterday");
  if (days < 7) return t("last_days");
  return new Intl.DateTimeFormat(locale, { month: "long", year: "numeric" }).format(then);
}
