// Every request of both faces; and one of them, with what belongs to it.
import { html } from "../lib/dom.js";
import { RequestList } from "../lib/requestlist.js";
import { Request } from "../lib/request.js";
import { Page } from "../lib/widgets.js";

export default function Requests({ route }) {
  if (route.parts[1]) return html`<${Request} key=${route.parts[1]} id=${route.parts[1]} />`;
  return html`<${Page} title="Requests" about="Everything that agents and apps have asked for, the newest first."><${RequestList} params=${route.params} title="Requests" /></${Page}>`;
}
