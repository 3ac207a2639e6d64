// Search tools, run code and talk to models, with the rights and the budget of whoever is signed in.
import { html, useEffect, useRef, useState } from "../lib/dom.js";
import { get, send } from "../lib/api.js";
import * as format from "../lib/format.js";
import { link } from "../lib/route.js";
import { Card, Code, Input, Page, Problem, Tabs, Text, useAction } from "../lib/widgets.js";

const TABS = [["tools", "Search tools"], ["code", "Run code"], ["chat", "Chat"]];

export default function Try({ route, session }) {
  const name = TABS.some(([one]) => one === route.parts[1]) ? route.parts[1] : "tools";
  const tabs = TABS.map(([one, text]) => [one, text, link(["try", one])]);
  const [metadata, setMetadata] = useState("");
  const as = session.key ? `with the rights of the key ${session.name || session.key}` : "with all rights";
  return html`<${Page} title="Try it" about=${`What an agent would see, ${as}. It is counted like every request.`}><${Tabs} tabs=${tabs} current=${name} label="What to try" />
    <div class="bar"><${Input} label="Metadata" hint="What the requests say of themselves: name=value, several with blanks" value=${metadata} onInput=${setMetadata} /></div>
    ${name === "tools" ? html`<${Tools} metadata=${metadataOf(metadata)} />` : name === "code" ? html`<${Run} metadata=${metadataOf(metadata)} />` : html`<${Chat} metadata=${metadataOf(metadata)} />`}</${Page}>`;
}

let last = 0;

/** A meta-tool, called over MCP as agents do: {text, isError, ms, cost}. */
async function call(name, args, metadata) {
  const began = performance.now();
  const response = await send("POST", "mcp", {
    accept: "application/json, text/event-stream", metadata,
    body: { jsonrpc: "2.0", id: ++last, method: "tools/call", params: { name, arguments: args } },
  });
  const message = await answerOf(response);
  if (message.error) throw new Error(message.error.message);
  const content = message.result.content || [];
  const text = content.map((block) => (block.type === "text" ? block.text : `[${block.type}]`)).join("\n");
  return { text, isError: Boolean(message.result.isError), ms: performance.now() - began, cost: response.headers.get("x-mcpgate-cost-usd") };
}

async function answerOf(response) {
  if (!(response.headers.get("content-type") || "").startsWith("text/event-stream")) return response.json();
  for await (const data of events(response)) {
    const message = JSON.parse(data);
    if (message.id === last && (message.result || message.error)) return message;
  }
  throw new Error("the answer ended early");
}

/** The data of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value.replaceAll("\r", "");
    for (let at = rest.indexOf("\n\n"); at >= 0; at = rest.indexOf("\n\n")) {
      const data = rest.slice(0, at).split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      rest = rest.slice(at + 2);
      if (data) yield data;
    }
  }
}

/** `env=dev project=p7` as a header; other characters than ASCII escaped. */
function metadataOf(text) {
  const pairs = text.split(/[\s,]+/).filter(Boolean).map((one) => [one.split("=", 1)[0], one.slice(one.indexOf("=") + 1)]);
  const json = JSON.stringify(Object.fromEntries(pairs));
  return pairs.length ? json.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`) : "";
}

function Outcome({ found, label }) {
  if (!found) return null;
  return html`<div class="stack" role="status"><div class="muted">${found.isError ? html`<span class="badge bad">failed</span> ` : ""}${format.duration(found.ms)}${
    found.cost !== null && ` · ${format.money(found.cost)}`} · about ${format.number(Math.ceil(found.text.length / 4))} tokens for the model</div>
    <${Code} text=${found.text} label=${label} /></div>`;
}

function Tools({ metadata }) {
  const [query, setQuery] = useState(""), [found, setFound] = useState(null), [names, setNames] = useState(""), [stubs, setStubs] = useState(null), [state, run] = useAction(), [describing, describe] = useAction();
  return html`<${Card} title="Find"><form class="stack" onSubmit=${(event) => { event.preventDefault(); run(async () => setFound(await call("list_tools", query ? { query } : {}, metadata))); }}>
      <div class="bar"><div class="grow"><${Input} label="What is to be done" hint="Empty: the servers" value=${query} onInput=${setQuery} /></div><button class="button primary" disabled=${state.busy}>Search</button></div>
      <${Problem} error=${state.error} /><${Outcome} found=${found} label="Tools found" /></form></${Card}>
    <${Card} title="Describe"><form class="stack" onSubmit=${(event) => { event.preventDefault(); describe(async () => setStubs(await call("describe_tools", { names: names.split(/[\s,]+/).filter(Boolean) }, metadata))); }}>
      <div class="bar"><div class="grow"><${Input} label="Tools" hint="server.tool; several with blanks" value=${names} onInput=${setNames} required /></div><button class="button primary" disabled=${describing.busy}>Describe</button></div>
      <${Problem} error=${describing.error} /><${Outcome} found=${stubs} label="Stubs" /></form></${Card}>`;
}

function Run({ metadata }) {
  const [code, setCode] = useState("sum(n * n for n in range(10))"), [found, setFound] = useState(null), [state, run] = useAction();
  const submit = (event) => { if (event) event.preventDefault(); run(async () => setFound(await call("execute_code", { code }, metadata))); };
  return html`<${Card} title="Python, in the sandbox"><form class="stack" onSubmit=${submit}>
    <${Text} code label="Code" hint="Every server is a global: files.read_text_file(path=…). Ctrl+Enter runs it." rows="10" value=${code} onInput=${setCode}
      onKeyDown=${(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); }} />
    <div class="form-end"><button class="button primary" disabled=${state.busy || !code.trim()}>${state.busy ? "Running …" : "Run"}</button></div>
    <${Problem} error=${state.error} /><${Outcome} found=${found} label="Answer" /></form></${Card}>`;
}

function Chat({ metadata }) {
  const [models, setModels] = useState([]), [model, setModel] = useState(""), [text, setText] = useState(""), [turns, setTurns] = useState([]), [state, run] = useAction();
  const control = useRef(null);
  useEffect(() => { get("v1/models").then((found) => setModels(found.data.map((one) => one.id)), () => setModels([])); return () => control.current && control.current.abort(); }, []);
  const submit = (event) => {
    event.preventDefault();
    const said = [...turns.filter((turn) => turn.content), { role: "user", content: text }];
    setTurns(said);
    setText("");
    run(() => converse(said));
  };
  const converse = async (said) => {
    control.current = new AbortController();
    const began = performance.now();
    const response = await send("POST", "v1/chat/completions", {
      signal: control.current.signal, accept: "text/event-stream", metadata,
      body: { model, stream: true, stream_options: { include_usage: true }, messages: said.map(({ role, content }) => ({ role, content })) },
    });
    let content = "", usage = null;
    const by = response.headers.get("x-mcpgate-provider");
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message || "the model failed");
      content += (chunk.choices && chunk.choices[0] && chunk.choices[0].delta && chunk.choices[0].delta.content) || "";
      usage = chunk.usage || usage;
      setTurns([...said, { role: "assistant", content, by, usage, ms: performance.now() - began }]);
    }
  };
  return html`<${Card} title="Chat" actions=${turns.length > 0 && html`<button class="button small" onClick=${() => setTurns([])}>Start again</button>`}><div class="chat" role="log" aria-label="Conversation">
      ${turns.map((turn) => html`<div class=${`turn ${turn.role}`}><span class="by">${turn.role === "user" ? "You" : [turn.by, turn.usage && `${format.number(turn.usage.total_tokens)} tokens`, format.duration(turn.ms)].filter(Boolean).join(" · ")}</span>${turn.content}</div>`)}</div>
    <form class="stack" onSubmit=${submit}><${Input} label="Model" list="models" value=${model} onInput=${setModel} required hint=${models.length ? `${models.length} to choose from; provider/model works too` : "No aliases are configured; provider/model works"} />
      <datalist id="models">${models.map((name) => html`<option value=${name} />`)}</datalist>
      <${Text} label="Message" rows="3" value=${text} onInput=${setText} required /><${Problem} error=${state.error} />
      <div class="form-end"><button class="button primary" disabled=${state.busy || !text.trim() || !model.trim()}>${state.busy ? "Answering …" : "Send"}</button></div></form></${Card}>`;
}
