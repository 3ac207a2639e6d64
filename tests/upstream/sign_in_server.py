"""A real authorization server and a real MCP server that accepts its tokens, on two ports of this machine, in threads of
their own. They speak the wire, check what the specifications let them check, and can be told to behave badly."""

import base64
import hashlib
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

TOOLS = ("whoami", "write", "together")


@dataclass
class Grant:
    """What a token is good for."""

    subject: str
    scope: str
    family: str
    resource: str
    ends_at: float


@dataclass
class Seen:
    port: str
    """auth or mcp."""
    method: str
    path: str
    fields: dict[str, str]
    token: str = ""
    rpc: str = ""
    tool: str = ""


@dataclass
class SignInServer:
    """`auth` and `mcp` are the addresses; what follows can be changed while it runs."""

    auth: str = ""
    mcp: str = ""
    lifetime_s: float = 3600.0
    refreshes: bool = True
    subject: str = "ada"
    """Who signs in next: a real one would ask."""
    scope: str = "mcp:read"
    """What every MCP request needs."""
    scopes_supported: list[str] | None = None
    challenge_names_metadata: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    """Laid over the authorization server's metadata."""
    resource_metadata: dict[str, Any] = field(default_factory=dict)
    """Laid over the protected resource's metadata."""
    iss: str | None = ""
    """Of the answer; "" for the true one, None for none."""
    registers: bool = True
    hook: Callable[["Exchange"], bool] | None = None
    """Asked first; True if it has answered."""
    notes: bool = False
    """It has resources and prompts of each account too, and a stream on which it announces changes."""
    streams: list[tuple[str, queue.SimpleQueue[bytes]]] = field(default_factory=list)
    """Accounts with what goes to their open streams."""
    subscribed: set[tuple[str, str]] = field(default_factory=set)
    """Accounts with the URIs that they follow."""
    answers: list[tuple[str, Any]] = field(default_factory=list)
    """Accounts with the results of what they were asked."""
    holding: threading.Barrier | None = None
    """Calls of `together` wait for each other here."""
    seen: list[Seen] = field(default_factory=list)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, Grant] = field(default_factory=dict)
    refresh_tokens: dict[str, Grant] = field(default_factory=dict)
    used: dict[str, Grant] = field(default_factory=dict)
    """Refresh tokens that were used: who uses one again has stolen it."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    device_codes: dict[str, bool] = field(default_factory=dict)
    """Device code → whether somebody has entered it."""
    stolen: int = 0
    issued: list[str] = field(default_factory=list)
    """Codes and tokens, ever."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        return f"{self.mcp}/mcp"

    def entry(self, **more: Any) -> dict[str, Any]:
        """Its entry in `mcpServers`."""
        return {"url": self.url, "type": "http", "timeout_s": 20, "connect_timeout_s": 20, **more}

    def count(self, path: str, **fields: str) -> int:
        return sum(one.path == path and fields.items() <= one.fields.items() for one in list(self.seen))

    def ask(self, subject: str, method: str) -> None:
        self.announce(subject, method, {"id": f"asked-{subject}"})

    def announce(self, subject: str, method: str, more: dict[str, Any] | None = None, **params: str) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **(more or {})}
        for whose, stream in list(self.streams):
            if whose == subject:
                stream.put(f"data: {json.dumps(message)}\n\n".encode())

    def calls(self, rpc: str = "tools/call") -> list[Seen]:
        return [one for one in list(self.seen) if one.rpc == rpc]

    def revoke_all(self) -> None:
        """As an administrator does: nothing that was issued works any more."""
        with self.lock:
            self.tokens.clear()
            self.refresh_tokens.clear()

    def expire_all(self) -> None:
        with self.lock:
            self.tokens.clear()

    def secrets(self) -> list[str]:
        """Everything that must be found nowhere."""
        return [*self.issued, *(client["secret"] for client in self.clients.values() if client.get("secret"))]

    # --- the authorization server

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.auth,
            "authorization_endpoint": f"{self.auth}/authorize",
            "token_endpoint": f"{self.auth}/token",
            "revocation_endpoint": f"{self.auth}/revoke",
            "device_authorization_endpoint": f"{self.auth}/device",
            **({"registration_endpoint": f"{self.auth}/register"} if self.registers else {}),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def issue(self, subject: str, scope: str, resource: str, family: str | None = None) -> dict[str, Any]:
        access, refresh = f"access-{secrets.token_hex(12)}", f"refresh-{secrets.token_hex(12)}"
        grant = Grant(subject, scope, family or secrets.token_hex(4), resource, time.time() + self.lifetime_s)
        self.tokens[access] = grant
        self.issued += [access, refresh]
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": self.lifetime_s, "scope": scope}
        if self.refreshes:
            self.refresh_tokens[refresh] = grant
            answer["refresh_token"] = refresh
        return answer

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        client = self._client(form, authorization)
        if client is None:
            return 401, {"error": "invalid_client"}
        if form.get("resource") != self.resource_metadata.get("resource", self.url):
            return 400, {"error": "invalid_target", "error_description": form.get("resource", "no resource")}
        match form.get("grant_type"):
            case "authorization_code":
                code = self.codes.pop(form.get("code", ""), None)
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
                asked = (form.get("redirect_uri"), proof, client)
                if code is None or asked != (code["redirect_uri"], code["code_challenge"], code["client_id"]):
                    return 400, {"error": "invalid_grant"}
                return 200, self.issue(code["subject"], code["scope"], form["resource"])
            case "refresh_token":
                text = form.get("refresh_token", "")
                if text in self.used:
                    self.stolen += 1
                    family = self.used[text].family
                    self.tokens = {k: v for k, v in self.tokens.items() if v.family != family}
                    self.refresh_tokens = {k: v for k, v in self.refresh_tokens.items() if v.family != family}
                grant = self.refresh_tokens.pop(text, None)
                if grant is None:
                    return 400, {"error": "invalid_grant", "error_description": f"{text} is not valid"}
                self.used[text] = grant
                return 200, self.issue(grant.subject, grant.scope, grant.resource, grant.family)
            case "client_credentials":
                return 200, self.issue(client, form.get("scope", ""), form["resource"])
            case "urn:ietf:params:oauth:grant-type:device_code":
                if form.get("device_code") not in self.device_codes:
                    return 400, {"error": "invalid_grant"}
                if not self.device_codes[form["device_code"]]:
                    return 400, {"error": "authorization_pending"}
                return 200, self.issue(self.subject, self.scope, form["resource"])
        return 400, {"error": "unsupported_grant_type"}

    def _client(self, form: dict[str, str], authorization: str) -> str | None:
        if authorization.startswith("Basic "):
            id, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
            id, secret, method = unquote(id), unquote(secret), "client_secret_basic"
        else:
            id, secret = form.get("client_id", ""), form.get("client_secret", "")
            method = "client_secret_post" if secret else "none"
        known = self.clients.get(id)
        fits = known is not None and (known["method"], known.get("secret", "")) == (method, secret)
        return id if fits else None

    # --- the MCP server

    def noted(self, subject: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """What an account's notes are, and its prompts."""
        match method:
            case "resources/list":
                return {"resources": [{"uri": f"note://{subject}", "name": subject}]}
            case "resources/templates/list":
                return {"resourceTemplates": [{"uriTemplate": f"file:///{subject}/{{path}}", "name": "files"}]}
            case "resources/read":
                return {"contents": [{"uri": params["uri"], "text": f"{params['uri']} for {subject}"}]}
            case "resources/subscribe":
                self.subscribed.add((subject, params["uri"]))
            case "resources/unsubscribe":
                self.subscribed.discard((subject, params["uri"]))
            case "prompts/list":
                return {"prompts": [{"name": f"greet-{subject}"}]}
            case "prompts/get":
                text = f"{params['name']} for {subject}"
                return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
            case "completion/complete":
                return {"completion": {"values": [subject]}}
        return {}

    def refusal(self, token: str, needed: str) -> tuple[int, str] | None:
        """The status and the challenge of a request that is not allowed."""
        place = f', resource_metadata="{self.mcp}/.well-known/oauth-protected-resource/mcp"'
        more = place if self.challenge_names_metadata else ""
        grant = self.tokens.get(token)
        if not token:
            return 401, f'Bearer realm="mcp", scope="{self.scope}"{more}'
        if grant is None or grant.ends_at < time.time():
            return 401, f'Bearer error="invalid_token", error_description="it has ended"{more}'
        if needed not in grant.scope.split():
            return 403, f'Bearer error="insufficient_scope", scope="{needed}"{more}'
        return None


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    state: SignInServer
    port = ""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("content-length", 0))))

    do_DELETE = do_POST

    @property
    def way(self) -> str:
        return urlsplit(self.path).path

    def reply(self, status: int, body: Any = None, **headers: str) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content_type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _handle(self, body: bytes) -> None:
        state = self.state
        kind = self.headers.get("content-type", "")
        given = json.loads(body) if body and "json" in kind else dict(parse_qsl(body.decode()))
        self.fields = {**dict(parse_qsl(urlsplit(self.path).query)), **given}
        token = self.headers.get("authorization", "").removeprefix("Bearer ") if self.port == "mcp" else ""
        params = given.get("params") if isinstance(given.get("params"), dict) else {}
        seen = Seen(self.port, self.command, self.way, self.fields, token, str(given.get("method", "")))
        seen.tool = str(params.get("name", ""))
        state.seen.append(seen)
        if state.hook is not None and state.hook(self):
            return
        self._auth() if self.port == "auth" else self._mcp(given, token)

    def _auth(self) -> None:
        state, fields = self.state, self.fields
        with state.lock:
            match self.command, self.way:
                case "GET", "/.well-known/oauth-authorization-server":
                    self.reply(200, state.described())
                case "POST", "/register":
                    method = fields.get("token_endpoint_auth_method", "client_secret_basic")
                    id = f"client-{len(state.clients) + 1}"
                    secret = {} if method == "none" else {"client_secret": f"secret-{secrets.token_hex(8)}"}
                    uris = fields.get("redirect_uris", [])
                    state.clients[id] = {"method": method, "uris": uris, "secret": secret.get("client_secret", "")}
                    self.reply(201, {"client_id": id, "token_endpoint_auth_method": method, **secret})
                case "GET", "/authorize":
                    self._authorize()
                case "POST", "/token":
                    self.reply(*state.token(fields, self.headers.get("authorization", "")))
                case "POST", "/revoke":
                    for table in (state.tokens, state.refresh_tokens):
                        table.pop(fields.get("token", ""), None)
                    self.reply(200)
                case "POST", "/device":
                    code = f"device-{secrets.token_hex(8)}"
                    state.device_codes[code] = False
                    self.reply(200, {"device_code": code, "user_code": "ABCD-EFGH", "interval": 0.05,
                                     "verification_uri": f"{state.auth}/enter", "expires_in": 60})  # fmt: skip
                case "GET", "/enter":
                    state.device_codes = dict.fromkeys(state.device_codes, True)
                    self.reply(200, b"thanks")
                case _:
                    self.reply(404)

    def _authorize(self) -> None:
        state, fields = self.state, self.fields
        client = state.clients.get(fields.get("client_id", ""))
        wanted = ("code", "S256", True)
        asked = (fields.get("response_type"), fields.get("code_challenge_method"), bool(fields.get("code_challenge")))
        if client is None or fields.get("redirect_uri") not in client["uris"] or asked != wanted:
            self.reply(400, b"this request is not good")
            return
        code = f"code-{secrets.token_hex(12)}"
        state.issued.append(code)
        names = ("redirect_uri", "code_challenge", "client_id")
        state.codes[code] = {name: fields[name] for name in names} | {
            "subject": state.subject,
            "scope": fields.get("scope", ""),
        }
        iss = {} if state.iss is None else {"iss": state.iss or state.auth}
        query = urlencode({"code": code, "state": fields.get("state", ""), **iss})
        self.reply(302, location=f"{fields['redirect_uri']}?{query}")

    def _mcp(self, message: dict[str, Any], token: str) -> None:
        state = self.state
        if self.way.startswith("/.well-known/oauth-protected-resource"):
            described: dict[str, Any] = {"resource": state.url, "authorization_servers": [state.auth]}
            if state.scopes_supported is not None:
                described["scopes_supported"] = state.scopes_supported
            self.reply(200, described | state.resource_metadata)
            return
        streams = state.notes and self.command == "GET"
        if self.way != "/mcp" or (self.command != "POST" and not streams):
            self.reply(405 if self.way == "/mcp" else 404)
            return
        tool = str(message.get("params", {}).get("name", ""))
        with state.lock:
            refused = state.refusal(token, "mcp:write" if tool == "write" else state.scope)
            grant = state.tokens.get(token)
        if refused is not None:
            self.reply(refused[0], {"error": "no"}, www_authenticate=refused[1])
            return
        assert grant is not None
        if streams:
            self._stream(grant.subject)
            return
        result: dict[str, Any] = {}
        match message.get("method"):
            case "initialize":
                notes = {"resources": {"subscribe": True, "listChanged": True}, "prompts": {"listChanged": True},
                         "completions": {}}  # fmt: skip
                result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, **(notes if state.notes else {})},
                          "serverInfo": {"name": "guarded", "version": "1"}}  # fmt: skip
            case "tools/list":
                result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
            case "tools/call":
                if tool == "together" and state.holding is not None:
                    state.holding.wait(10)
                result = {"content": [{"type": "text", "text": f"{tool} by {grant.subject}"}]}
            case str() as method if state.notes:
                result = state.noted(grant.subject, method, message.get("params", {}))
            case None:
                state.answers.append((grant.subject, message.get("result")))
        if "id" in message and "method" in message:
            self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})
        else:
            self.reply(202)

    def _stream(self, subject: str) -> None:
        """What the server announces to an account, until it is told to end the stream."""
        stream: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.flush()
        self.state.streams.append((subject, stream))
        while event := stream.get():
            try:
                self.wfile.write(event)
            except OSError:
                break
        self.state.streams.remove((subject, stream))
        self.close_connection = True


@contextmanager
def sign_in_server(**how: Any) -> Iterator[SignInServer]:
    state = SignInServer(**how)
    ports = []
    for name in ("auth", "mcp"):
        handler = type(f"{name}Exchange", (Exchange,), {"state": state, "port": name})
        port = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        port.daemon_threads = True
        threading.Thread(target=port.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        setattr(state, name, f"http://127.0.0.1:{port.server_port}")
        ports.append(port)
    try:
        yield state
    finally:
        for _, stream in list(state.streams):
            stream.put(b"")
        for port in ports:
            port.shutdown()
            port.server_close()
