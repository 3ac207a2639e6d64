// Models and their targets: which rest after failures, how quick they are, what they cost, and where a request would go.
import { html, useState } from "../lib/dom.js";
import { post, useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { span } from "../lib/ranges.js";
import { Badge, Card, Check, Code, Input, Loaded, Page, Problem, Table, useAction } from "../lib/widgets.js";

export default function Models({ session }) {
  const { since, until } = span("7d");
  const models = useData("api/models"), targets = useData("api/models/targets", {}, { every: 4000 });
  const usage = useData("api/usage", { by: "provider,model", where: "kind=chat", since, until, limit: 500, order: "entries" });
  const known = new Map((usage.data ? usage.data.rows : []).map((row) => [`${row.provider}/${row.model}`, row]));
  return html`<${Page} title="Models and targets" about="Counts, errors and cost of the last 7 days. Health is that of this process.">
    <${Card} title="Targets" flush><${Loaded} state=${targets}>${(data) => html`<${Targets} rows=${data.targets} known=${known} />`}</${Loaded}></${Card}>
    <div class="grid-2">
      <${Card} title="Aliases" flush><${Loaded} state=${models}>${(data) => html`<${Table} label="Aliases" rows=${data.aliases} keyOf=${(row) => row.name}
        empty="No aliases are configured in llm.models; provider/model works without." columns=${[
          { name: "name", label: "Alias", value: (row) => row.name, render: (row) => html`<code class="strong">${row.name}</code>` },
          { name: "strategy", label: "Strategy", value: (row) => row.strategy, render: (row) => (row.routes ? `${row.routes} routes` : row.strategy) },
          { name: "targets", label: "Targets", render: (row) => row.targets.map((name) => html`<span class="tag">${name}</span>`) },
        ]} />`}</${Loaded}></${Card}>
      <${Card} title="Providers" flush><${Loaded} state=${models}>${(data) => html`<${Table} label="Providers" rows=${data.providers} keyOf=${(row) => row.name}
        empty="No providers are configured in llm.providers." columns=${[
          { name: "name", label: "Provider", value: (row) => row.name, render: (row) => html`<code class="strong">${row.name}</code>` },
          { name: "type", label: "Type", value: (row) => row.type },
        ]} />`}</${Loaded}></${Card}>
    </div>
    ${!session.realm && html`<${Explain} />`}
  </${Page}>`;
}

function Targets({ rows, known }) {
  const all = [...rows];
  for (const name of known.keys()) {
    if (!name.startsWith("null/") && !name.endsWith("/null") && !all.some((row) => row.target === name)) all.push({ target: name, rests_s: 0, typical_ms: null });
  }
  const of = (row) => known.get(row.target), each = (row) => (of(row) && of(row).entries ? of(row).latency_ms / of(row).entries : null);
  return html`<${Table} label="Targets" rows=${all} keyOf=${(row) => row.target} empty="No targets yet." columns=${[
    { name: "target", label: "Target", value: (row) => row.target, render: (row) => html`<code class="strong">${row.target}</code>` },
    { name: "state", label: "Breaker", value: (row) => row.rests_s, render: (row) => (row.rests_s > 0
      ? html`<${Badge} text="resting" title="It failed several times in a row" /> <span class="muted">${format.duration(row.rests_s * 1000)}</span>` : html`<${Badge} text="ok" />`) },
    { name: "typical", label: "Typical time", number: true, value: (row) => row.typical_ms, render: (row) => format.duration(row.typical_ms) },
    { name: "mean", label: "Mean time", number: true, value: each, render: (row) => format.duration(each(row)) },
    { name: "calls", label: "Attempts", number: true, value: (row) => of(row)?.entries || 0, render: (row) => format.number(of(row)?.entries || 0) },
    { name: "failed", label: "Errors", number: true, value: (row) => of(row)?.failed || 0, render: (row) => (of(row) ? format.percent(of(row).failed / of(row).entries) : "–") },
    { name: "tokens", label: "Tokens", number: true, value: (row) => (of(row) ? of(row).input_tokens + of(row).output_tokens : 0),
      render: (row) => format.short(of(row) ? of(row).input_tokens + of(row).output_tokens : 0) },
    { name: "cost", label: "Cost", number: true, value: (row) => Number(of(row)?.cost_usd || 0), render: (row) => format.money(of(row)?.cost_usd || 0) },
  ]} />`;
}

function Explain() {
  const [model, setModel] = useState(""), [key, setKey] = useState(""), [tokens, setTokens] = useState(""), [tools, setTools] = useState(false);
  const [found, setFound] = useState(null), [state, run] = useAction();
  const submit = (event) => {
    event.preventDefault();
    run(async () => setFound(await post("api/models/explain", { model, tools, ...(key ? { key } : {}), ...(tokens ? { input_tokens: Number(tokens) } : {}) })));
  };
  return html`<${Card} title="Where would a request go?"><form class="stack" onSubmit=${submit}><div class="bar">
      <${Input} label="Model" value=${model} onInput=${setModel} required /><${Input} label="Key (id)" value=${key} onInput=${setKey} />
      <${Input} label="Input tokens" type="number" min="0" value=${tokens} onInput=${setTokens} /><${Check} label="with tools" value=${tools} onInput=${setTools} />
      <button class="button primary" disabled=${state.busy}>Explain</button></div><${Problem} error=${state.error} />
      ${found && html`<div><strong>${found.targets.length ? found.targets.join(" → ") : "no target"}</strong></div>
        <${Code} label="Steps" text=${found.steps.map((step) => Object.values(step).filter((value) => value !== "" && value !== null).join(" · ")).join("\n")} />`}
    </form></${Card}>`;
}
