// Who declared, changed and revoked what.
import { html } from "../lib/dom.js";
import { usePages } from "../lib/api.js";
import { Badge, Card, More, Page, Problem, Table, Time } from "../lib/widgets.js";

const LIMIT = 100;
const TONE = { create: "good", revoke: "bad", delete: "bad" };

export default function Changes() {
  const pages = usePages("api/audit", { limit: LIMIT }, (data) => data.audit,
    (data, rows) => (rows.length === LIMIT ? { before: rows[rows.length - 1].number } : null));
  return html`<${Page} title="Changes" about="Every change of keys, teams, budgets and limits, newest first. No secret is ever part of it.">
    <${Card} label="Changes" flush><${Problem} error=${pages.error} retry=${pages.reload} />
      <${Table} label="Changes" rows=${pages.rows} keyOf=${(row) => row.number} empty=${pages.loading ? "Loading …" : "Nothing was changed yet."} columns=${[
        { name: "at", label: "When", render: (row) => html`<${Time} at=${row.at} />` },
        { name: "actor", label: "Who", render: (row) => html`<code>${row.actor}</code>` },
        { name: "action", label: "Action", render: (row) => html`<${Badge} text=${row.action} tone=${TONE[row.action] || "quiet"} />` },
        { name: "kind", label: "Of", render: (row) => html`${row.kind.replaceAll("_", " ")} <code class="strong">${row.id}</code>` },
        { name: "value", label: "What it says now", wide: true, render: (row) => row.value && html`<code class="muted">${brief(row.value)}</code>` },
      ]} /><${More} pages=${pages} /></${Card}>
  </${Page}>`;
}

function brief(value) {
  const { spec, hint, created_at: _at, revoked_at: _revoked, ...rest } = value;
  const text = JSON.stringify(spec || rest);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
