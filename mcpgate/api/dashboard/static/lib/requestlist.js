// A list of requests: filters in the address, older ones by a cursor, new ones as they end.
import { html, useEffect, useRef, useState } from "./dom.js";
import { address, usePages } from "./api.js";
import * as format from "./format.js";
import { setParams } from "./route.js";
import { A, Badge, Card, Input, More, Problem, Select, Table, Time } from "./widgets.js";

const NAMES = ["key", "user", "team", "customer", "kind", "server", "tool", "provider", "model", "alias", "outcome", "cache", "client", "session", "request"];
const MOST_LIVE = 500;

/** What was asked for, in a few words. */
export function titleOf(row) {
  if (row.kind === "tool") return `${row.server || ""}.${row.tool || ""}`;
  if (row.face === "llm" || row.model) return row.alias || (row.model ? `${row.provider}/${row.model}` : row.kind);
  return row.tool || row.kind;
}

export function Outcome({ row }) {
  return html`<${Badge} text=${row.outcome} tone=${row.outcome === "ok" ? "good" : row.outcome === "cancelled" ? "quiet" : "bad"} title=${row.status ? `HTTP ${row.status}` : ""} />`;
}

/** `fixed`: filters that are always on, such as kind=execution. */
export function RequestList({ params, fixed = "", title, more = [] }) {
  const where = [fixed, params.get("where") || "", params.get("failed") === "1" ? "failed=true" : ""].filter(Boolean).join(",");
  const query = { where, since: params.get("since") || "", min_latency_ms: params.get("slow") || "", nested: params.get("nested") || "", q: params.get("q") || "" };
  const pages = usePages("api/requests", { ...query, limit: 50 }, (data) => data.requests, (data) => (data.next ? { cursor: data.next } : null));
  const live = useLive(query, pages.setRows);
  return html`<${Card} label="Filters"><${Filters} params=${params} fixed=${fixed} /></${Card}>
    <${Card} title=${title} flush actions=${html`<span class=${live.on ? "live" : "live off"}>${live.on ? "Live" : "Paused"}</span>
      <button class="button small" aria-pressed=${live.wanted ? "true" : "false"} onClick=${live.toggle}>${live.wanted ? "Pause" : "Follow"}</button>`}>
      <${Problem} error=${pages.error} retry=${pages.reload} />
      <${Table} label=${title} rows=${pages.rows} keyOf=${(row) => row.id} empty=${pages.loading ? "Loading …" : "No such requests."} columns=${[
        { name: "at", label: "When", render: (row) => html`<${A} to=${["requests", row.id]}><${Time} at=${row.at} /></${A}>` },
        { name: "what", label: "What", wide: true, render: (row) => html`<code class="strong">${titleOf(row)}</code> <span class="hint">${row.kind}${row.child_count ? ` · ${format.number(row.child_count)} inside` : ""}</span>` },
        { name: "outcome", label: "Outcome", render: (row) => html`<${Outcome} row=${row} />` },
        { name: "key", label: "Key", render: (row) => html`${row.key_name || row.key}${row.user && html`<span class="hint"> · ${row.user}</span>`}` },
        ...more,
        { name: "cache", label: "Cache", render: (row) => (row.cache === "off" ? html`<span class="muted">–</span>` : html`<${Badge} text=${row.cache} tone=${row.cache === "miss" ? "quiet" : "good"} />`) },
        { name: "tokens", label: "Tokens", number: true, render: (row) => format.short(row.tokens.input + row.tokens.output) },
        { name: "cost", label: "Cost", number: true, render: (row) => format.money(row.cost_usd) },
        { name: "time", label: "Time", number: true, render: (row) => format.duration(row.latency_ms.total) },
      ]} /><${More} pages=${pages} /></${Card}>`;
}

/** New requests by server-sent events, put in front. */
function useLive(query, setRows) {
  const [wanted, setWanted] = useState(true), [on, setOn] = useState(false), place = address("api/requests", { ...query, follow: "1" }).href;
  const add = useRef(setRows);
  add.current = setRows;
  useEffect(() => {
    if (!wanted || query.q) return undefined;
    const source = new EventSource(place);
    source.onopen = () => setOn(true);
    source.onerror = () => setOn(false);
    source.onmessage = (event) => {
      const row = JSON.parse(event.data);
      add.current((rows) => (rows.some((one) => one.id === row.id) ? rows : [row, ...rows].slice(0, Math.max(MOST_LIVE, rows.length))));
    };
    return () => { source.close(); setOn(false); };
  }, [place, wanted]);
  return { on, wanted, toggle: () => setWanted(!wanted) };
}

const SINCE = [["", "all times"], ["1h", "the last hour"], ["1d", "the last day"], ["7d", "the last 7 days"], ["30d", "the last 30 days"]];
const SLOW = [["", "any time"], ["100", "over 100 ms"], ["1000", "over 1 s"], ["10000", "over 10 s"]];

function Filters({ params, fixed }) {
  const [name, setName] = useState("key"), [value, setValue] = useState(""), [metadata, setMetadata] = useState("");
  const filters = (params.get("where") || "").split(",").filter(Boolean);
  const set = (list) => setParams({ where: list.join(",") });
  const submit = (event) => {
    event.preventDefault();
    const key = name === "metadata" ? `metadata.${metadata}` : name;
    set([...filters.filter((one) => !one.startsWith(`${key}=`)), `${key}=${value}`]);
    setValue("");
  };
  const names = NAMES.filter((one) => !fixed.startsWith(`${one}=`));
  return html`<form class="bar" onSubmit=${submit}>
    <${Select} label="Where" value=${name} options=${[...names.map((one) => [one, one]), ["metadata", "metadata …"]]} onInput=${setName} />
    ${name === "metadata" && html`<${Input} label="Name" value=${metadata} onInput=${setMetadata} required />`}
    <${Input} label="is" value=${value} onInput=${setValue} required pattern="[^,]*" title="Commas cannot be part of a filter" />
    <button class="button">Add filter</button>
    <${Select} label="Since" value=${params.get("since") || ""} options=${SINCE} onInput=${(since) => setParams({ since })} />
    <${Select} label="Took" value=${params.get("slow") || ""} options=${SLOW} onInput=${(slow) => setParams({ slow })} />
    <${Select} label="Outcome" value=${params.get("failed") || ""} options=${[["", "any"], ["1", "failed"]]} onInput=${(failed) => setParams({ failed })} />
    <${Input} label="Says" type="search" value=${params.get("q") || ""} onInput=${() => {}} onChange=${(event) => setParams({ q: event.target.value })}
      title="Words of the content, where it is kept" placeholder="words of the content" />
    ${filters.length > 0 && html`<div class="chips">${filters.map((one) => html`<span class="chip">${one.replace("=", " = ")}
      <button type="button" aria-label=${`Remove the filter ${one}`} onClick=${() => set(filters.filter((other) => other !== one))}>✕</button></span>`)}</div>`}
  </form>`;
}
