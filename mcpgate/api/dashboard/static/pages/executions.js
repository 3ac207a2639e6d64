// Code that models have run: how long, with how many calls, what it saved.
import { html } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { RequestList } from "../lib/requestlist.js";
import { Page } from "../lib/widgets.js";

const MORE = [
  { name: "calls", label: "Calls", number: true, render: (row) => format.number(row.child_count) },
  { name: "code", label: "Code ran", number: true, render: (row) => format.duration(row.code_s * 1000) },
  { name: "saved", label: "Tokens saved", number: true, render: (row) => format.short(row.saved_tokens.definitions + row.saved_tokens.results) },
];

export default function Executions({ route }) {
  return html`<${Page} title="Executions" about="Code that models have run. Open one for its calls as a timeline."><${RequestList} params=${route.params} fixed="kind=execution" title="Executions" more=${MORE} /></${Page}>`;
}
