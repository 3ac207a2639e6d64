// Numbers, money and times as people read them. Pure.

const NUMBER = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
const MONTH = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", timeZone: "UTC" });
const HOUR = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const DAY_HOUR = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
});
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const NOTHING = "–";

const isNone = (value) => value === null || value === undefined || value === "";

/** 1234567 → 1,234,567 */
export function number(value) {
  return isNone(value) ? NOTHING : NUMBER.format(Number(value)).replace("-", "−");
}

/** 1234567 → 1.23M */
export function short(value) {
  return isNone(value) || Math.abs(value) < 10000 ? number(value) : SHORT.format(Number(value)).replace("-", "−");
}

/** Dollars with two decimals, or with as many as two significant digits need. */
export function money(value) {
  if (isNone(value)) return NOTHING;
  const usd = Number(value);
  const size = Math.abs(usd);
  const digits = size === 0 || size >= 1 ? 2 : Math.min(9, Math.max(2, 1 - Math.floor(Math.log10(size))));
  return `${usd < 0 ? "−" : ""}$${size.toLocaleString("en-US", {
    minimumFractionDigits: 2, maximumFractionDigits: digits,
  })}`;
}

/** 0.1234 → 12.3 % */
export function percent(share) {
  if (isNone(share) || !Number.isFinite(share)) return NOTHING;
  const value = share * 100;
  return `${value.toFixed(value !== 0 && Math.abs(value) < 10 ? 1 : 0)} %`;
}

/** Milliseconds as people say them. */
export function duration(ms) {
  if (isNone(ms) || !Number.isFinite(Number(ms))) return NOTHING;
  const value = Number(ms);
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 1000) return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  if (value < 60000) return `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s`;
  const minutes = Math.floor(value / 60000);
  if (minutes < 60) return `${minutes} min ${Math.round((value % 60000) / 1000)} s`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}

export function bytes(value) {
  if (isNone(value)) return NOTHING;
  const steps = ["B", "kB", "MB", "GB", "TB"];
  let size = Number(value), step = 0;
  while (size >= 1000 && step < steps.length - 1) { size /= 1000; step += 1; }
  return `${size.toFixed(step && size < 100 ? 1 : 0)} ${steps[step]}`;
}

/** A date, its ISO text, or epoch seconds. */
export function moment(value) {
  return value instanceof Date ? value : new Date(typeof value === "number" ? value * 1000 : value);
}

export function exact(value) {
  return isNone(value) ? NOTHING : EXACT.format(moment(value));
}

const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30.44], ["month", 12], ["year", Infinity]];

/** `5 minutes ago`, `in 3 days`. */
export function relative(value, now = Date.now()) {
  if (isNone(value)) return NOTHING;
  let amount = (moment(value).getTime() - now) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(amount) < size) return RELATIVE.format(Math.round(amount), unit);
    amount /= size;
  }
  return NOTHING;
}

/** The label of an hour, a day or a month of a report. */
export function bucket(text, kind, long = false) {
  const at = new Date(kind === "month" ? `${text}-01T00:00Z` : kind === "day" ? `${text}T00:00Z` : text);
  if (kind === "month") return MONTH.format(at);
  if (kind === "day") return DAY.format(at);
  return (long ? DAY_HOUR : HOUR).format(at);
}

export function measure(name, amount) {
  if (name === "cost") return money(amount);
  return name === "execution_seconds" ? `${number(amount)} s` : number(amount);
}

/** `1d` → `day`, `7d` → `7 days`. */
export function period(text) {
  const found = /^(\d+)([smhdwMQY])$/.exec(text || "");
  if (!found) return text || "";
  const unit = { s: "second", m: "minute", h: "hour", d: "day", w: "week", M: "month", Q: "quarter", Y: "year" }[found[2]];
  return found[1] === "1" ? unit : `${found[1]} ${unit}s`;
}
