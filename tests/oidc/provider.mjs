// A certified OpenID provider (oidc-provider) as companies run one: clients register themselves, people sign in on its
// pages, access tokens are JWTs for the resource that was asked for.
//
//     node provider.mjs path/to/oidc-provider/lib/index.js
//
// Prints its issuer, and ends with its standard input.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const { Provider } = await import(pathToFileURL(process.argv[2]));
const groups = { ada: ["engineers"], eve: ["visitors"] };
const server = createServer();

server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    cookies: { keys: ["of the tests"] },
    scopes: ["openid", "offline_access", "mcp"],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_, token) => ({ groups: groups[token.accountId] ?? [] }),
    ttl: { AccessToken: 300, Grant: 3600, Interaction: 600, Session: 3600 },
    features: {
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: "mcp", audience: resource, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
