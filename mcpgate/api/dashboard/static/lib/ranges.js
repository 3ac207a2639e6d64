// The times that reports are about. Their ends are whole hours or days, so that the gateway answers from its sums.
const HOUR = 3600000, DAY = 24 * HOUR;
export const RANGES = [["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["1Y", "Year"]];
const LENGTH = { "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY, "1Y": 365 * DAY };
const iso = (at) => new Date(at).toISOString().replace(/:\d\d\.\d+Z$/, "Z");

/** {since, until, bucket, buckets} of a range, or of two dates. */
export function span(range, from, to, now = Date.now()) {
  const until = to ? Date.parse(`${to}T00:00Z`) + DAY : Math.ceil((now + 1) / HOUR) * HOUR;
  const since = from ? Date.parse(`${from}T00:00Z`) : begin(range, until);
  const days = (until - since) / DAY;
  const bucket = days <= 3 ? "hour" : days <= 120 ? "day" : "month";
  return { since: iso(since), until: iso(until), bucket, buckets: buckets(since, until, bucket) };
}

function begin(range, until) {
  const length = LENGTH[range] || LENGTH["7d"];
  return length <= DAY ? until - length : Math.floor((until - 1) / DAY) * DAY - length + DAY;
}

/** The names that reports have for each hour, day or month. */
function buckets(since, until, bucket) {
  const found = [];
  const at = new Date(since);
  if (bucket === "month") at.setUTCDate(1);
  while (at.getTime() < until && found.length < 1000) {
    const text = at.toISOString();
    found.push(bucket === "hour" ? `${text.slice(0, 13)}:00Z` : text.slice(0, bucket === "day" ? 10 : 7));
    if (bucket === "month") at.setUTCMonth(at.getUTCMonth() + 1);
    else at.setTime(at.getTime() + (bucket === "day" ? DAY : HOUR));
  }
  return found;
}
