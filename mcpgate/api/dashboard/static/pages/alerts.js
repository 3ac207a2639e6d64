// Alerts: which are firing, about what, since when; the channels that are told, and whether they can be reached.
import { html, useState } from "../lib/dom.js";
import { post, useData } from "../lib/api.js";
import { Badge, Card, Empty, Loaded, Page, Problem, Table, Time, useAction } from "../lib/widgets.js";

export default function Alerts() {
  const state = useData("api/alerts", {}, { every: 4000 });
  return html`<${Page} title="Alerts" about="What is watched, what is wrong now, and who is told.">
    <${Loaded} state=${state}>${(data) => {
      const firing = data.alerts.flatMap((alert) => alert.states.filter((one) => one.firing).map((one) => ({ ...one, alert: alert.id })));
      return html`<${Card} title="Firing" flush><${Table} label="Firing" rows=${firing} keyOf=${(row) => `${row.alert} ${row.subject}`} empty="Nothing is wrong." columns=${[
          { name: "alert", label: "Alert", value: (row) => row.alert, render: (row) => html`<span class="strong">${row.alert}</span>` },
          { name: "subject", label: "About", value: (row) => row.subject, render: (row) => row.subject || html`<span class="muted">–</span>` },
          { name: "text", label: "What", wide: true, render: (row) => row.text },
          { name: "since", label: "Since", value: (row) => row.since, render: (row) => html`<${Time} at=${row.since} />` },
          { name: "told", label: "Told", render: (row) => html`<${Badge} text=${row.told ? "told" : "not yet"} tone=${row.told ? "good" : "warn"} />` },
        ]} /></${Card}>
        <div class="grid-2"><${Watched} alerts=${data.alerts} /><${Channels} channels=${data.channels} /></div>`;
    }}</${Loaded}></${Page}>`;
}

/** A condition in words: its names and values, whatever they are. */
function said(when) {
  if (when === null || typeof when !== "object") return String(when);
  return Object.entries(when).filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${
    value && typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}

function Watched({ alerts }) {
  return html`<${Card} title="Watched" flush><${Table} label="Watched" rows=${alerts} keyOf=${(row) => row.id} empty="No alerts are configured in telemetry.alerts." columns=${[
    { name: "id", label: "Alert", value: (row) => row.id, render: (row) => html`<span class="strong">${row.id}</span>` },
    { name: "when", label: "When", wide: true, render: (row) => html`<code>${said(row.when)}</code>` },
    { name: "firing", label: "State", value: (row) => Number(row.firing), render: (row) => html`<${Badge} text=${row.firing ? "firing" : "well"} tone=${row.firing ? "bad" : "good"} />` },
    { name: "channels", label: "Tells", render: (row) => [].concat(row.channels || []).map((name) => html`<span class="tag">${name}</span>`) },
  ]} /></${Card}>`;
}

function Channels({ channels }) {
  const [found, setFound] = useState(null), [state, run] = useAction();
  const of = (name) => (found || []).find((one) => one.name === name);
  const test = () => run(async () => setFound((await post("api/alerts/test")).channels));
  return html`<${Card} title="Channels" flush actions=${channels.length > 0 && html`<button class="button small" disabled=${state.busy} onClick=${test}>Send a test</button>`}>
    <${Problem} error=${state.error} />
    ${channels.length ? html`<${Table} label="Channels" rows=${channels} keyOf=${(row) => row.name} columns=${[
      { name: "name", label: "Channel", value: (row) => row.name, render: (row) => html`<span class="strong">${row.name}</span>` },
      { name: "type", label: "Type", value: (row) => row.type, render: (row) => [row.type, row.format].filter(Boolean).join(", ") },
      { name: "test", label: "Test", render: (row) => of(row.name) && (of(row.name).error ? html`<${Badge} text="failed" /><div class="hint">${of(row.name).error}</div>` : html`<${Badge} text="arrived" tone="good" />`) },
    ]} />` : html`<${Empty}>No channels are configured in telemetry.channels.</${Empty}>`}</${Card}>`;
}
