// What the cache answers in place of servers and models.
import { html, useState } from "../lib/dom.js";
import { remove, useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { span } from "../lib/ranges.js";
import { Card, Confirm, Empty, Loaded, Page, Stat, Table } from "../lib/widgets.js";

export default function Cache() {
  const state = useData("api/cache", { since: "7d" }, { every: 4000 }), { since, until } = span("7d"), [clearing, setClearing] = useState(false);
  const usage = useData("api/usage", { by: "kind,cache", since, until });
  const off = (state.error && state.error.status === 404) || (state.data && state.data.enabled === false);
  return html`<${Page} title="Cache" about="Answers that need neither a server nor a model. Counts are those of the last 7 days." actions=${!off && state.data
    && html`<button class="button danger" onClick=${() => setClearing(true)}>Clear</button>`}>
    ${clearing && html`<${Confirm} title="Clear the cache?" text="All entries of all keys are dropped." action="Clear" onClose=${() => setClearing(false)}
      onYes=${async () => { await remove("api/cache?all=true"); setClearing(false); state.reload(); }} />`}
    ${off ? html`<${Card} label="Cache"><${Empty}>The cache is off. Set <code>cache.enabled: true</code> in the configuration to turn it on.</${Empty}></${Card}>`
      : html`<${Loaded} state=${state}>${(data) => html`<${Figures} data=${data} />`}</${Loaded}>`}
    <${Card} title="Answers of the last 7 days" flush><${Loaded} state=${usage}>${(data) => html`<${Table} label="Answers by kind" rows=${byKind(data.rows)}
      keyOf=${(row) => row.kind} empty="No usage in this time." columns=${[
        { name: "kind", label: "Kind", value: (row) => row.kind },
        { name: "exact", label: "Exact hits", number: true, value: (row) => row.exact, render: (row) => format.number(row.exact) },
        { name: "semantic", label: "Semantic hits", number: true, value: (row) => row.semantic, render: (row) => format.number(row.semantic) },
        { name: "miss", label: "Misses", number: true, value: (row) => row.miss, render: (row) => format.number(row.miss) },
        { name: "none", label: "Not asked for", number: true, value: (row) => row.none, render: (row) => format.number(row.none) },
        { name: "rate", label: "Hit rate", number: true, value: rate, render: (row) => format.percent(rate(row)) },
      ]} />`}</${Loaded}></${Card}>
  </${Page}>`;
}

const KINDS = ["exact", "semantic", "miss"];
const rate = (row) => (row.exact + row.semantic) / (row.exact + row.semantic + row.miss);

function byKind(rows) {
  const found = new Map();
  for (const row of rows) {
    const sums = found.get(row.kind) || { kind: row.kind, exact: 0, semantic: 0, miss: 0, none: 0 };
    sums[KINDS.includes(row.cache) ? row.cache : "none"] += row.entries;
    found.set(row.kind, sums);
  }
  return [...found.values()];
}

function Figures({ data }) {
  const hits = data.hits || {};
  return html`<div class="stats">
    <${Stat} label="Hit rate" value=${format.percent(data.hit_rate)} hint=${`${format.number(data.misses)} misses`} />
    <${Stat} label="Exact hits" value=${format.short(hits.exact)} exact=${format.number(hits.exact)} />
    <${Stat} label="Semantic hits" value=${format.short(hits.semantic)} exact=${format.number(hits.semantic)} />
    <${Stat} label="Money saved" value=${format.money(data.saved_usd)} />
    <${Stat} label="Tokens saved" value=${format.short(data.saved_tokens)} exact=${format.number(data.saved_tokens)} />
    <${Stat} label="Entries" value=${format.short(data.entries)} exact=${format.number(data.entries)} hint=${format.bytes(data.bytes)} />
  </div>`;
}
