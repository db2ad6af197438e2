// A certified OpenID provider (npm oidc-provider) with a sign-in page and two accounts of its own, and the
// application that the gateway protects. For trying things out: passwords are on the page, everything is on
// loopback addresses and in clear.
//
//   PROVIDER_PORT, APP_PORT   9400, 9401
//   GATEWAYS                  origins of the gateways as browsers see them, with commas; the first one receives
//                             logout tokens
//   STATE_FILE                where keys, sessions and grants outlive a restart
//   CLIENT                    JSON; further metadata of the client (OpenID Connect Registration)
import http from 'node:http';
import { Provider, interactionPolicy } from 'oidc-provider';

import { accounts, claimsOf, signIn } from './accounts.js';
import { startApp } from './app.js';
import * as pages from './pages.js';
import { Store } from './store.js';

// oidc-provider needs it.
if (!URL.parse) {
  console.error(`Node.js 20 or later is required, and this is ${process.version}: https://nodejs.org/en/download`);
  process.exit(1);
}

const port = Number(process.env.PROVIDER_PORT ?? 9400);
const appPort = Number(process.env.APP_PORT ?? 9401);
const gateways = (process.env.GATEWAYS ?? 'http://127.0.0.1:8080,http://localhost:8080').split(',');
const issuer = `http://localhost:${port}`;
const store = new Store(process.env.STATE_FILE ?? '.state.json');
const MULTI_FACTOR = 'urn:example:mfa';

const client = {
  client_id: 'portcullis',
  client_name: 'Portcullis',
  client_secret: process.env.OIDC_SECRET ?? 'a-secret-for-this-example-only-0123456789',
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: gateways.map((origin) => `${origin}/api/v1/auth/callback/example`),
  post_logout_redirect_uris: gateways.map((origin) => `${origin}/api/v1/sign-out`),
  backchannel_logout_uri: `${gateways[0]}/api/v1/auth/backchannel-logout/example`,
  backchannel_logout_session_required: true,
  ...JSON.parse(process.env.CLIENT ?? '{}'),
};

// Asks for the second factor where the client wants it and the session does not have it yet.
const policy = interactionPolicy.base();
policy.get('login').checks.add(new interactionPolicy.Check(
  'second_factor',
  'A second factor is requested',
  ({ oidc }) => {
    const wanted = (oidc.params.acr_values ?? '').split(' ').includes(MULTI_FACTOR);
    return wanted && oidc.session.acr !== MULTI_FACTOR && oidc.result?.login?.acr !== MULTI_FACTOR;
  },
));

const provider = new Provider(issuer, {
  adapter: store.adapter,
  jwks: { keys: store.signingKeys() },
  cookies: { keys: [store.secret()] },
  clients: [client],
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] },
  acrValues: ['urn:example:password', MULTI_FACTOR],
  claims: {
    openid: ['sub', 'acr', 'amr', 'auth_time'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'groups'],
    sid: null,
  },
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    jwtResponseModes: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => { ctx.body = pages.signOut(form); },
      postLogoutSuccessSource: (ctx) => { ctx.body = pages.signedOut(); },
    },
  },
  // By default, loopback addresses are not called: a provider on the Internet must not be made to.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  findAccount: (ctx, id) => accounts[id] && {
    accountId: id,
    claims: () => ({ sub: id, ...claimsOf(id) }),
  },
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  // Every scope is granted: there is one client, and it is known.
  async loadExistingGrant({ oidc }) {
    const id = oidc.session.grantIdFor(oidc.client.clientId);
    const known = id && await oidc.provider.Grant.find(id);
    const grant = known || new oidc.provider.Grant({
      clientId: oidc.client.clientId, accountId: oidc.session.accountId,
    });
    grant.addOIDCScope(oidc.params.scope);
    await grant.save();
    return grant;
  },
  issueRefreshToken: () => true,
  renderError: (ctx, out) => { ctx.type = 'html'; ctx.body = pages.error(out); },
  ttl: { AccessToken: 300, IdToken: 300, Interaction: 600, Session: 86400, Grant: 86400 },
});
provider.on('server_error', (ctx, error) => console.error(error));
provider.on('backchannel.success', (ctx, { clientId }, account) => console.log(`logged ${account} out of ${clientId}`));
provider.on('backchannel.error', (ctx, error) => console.error(`back-channel logout: ${error.message}`));

async function form(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return Object.fromEntries(new URLSearchParams(body));
}

// The sign-in page.
async function interact(request, response) {
  const { prompt, params } = await provider.interactionDetails(request, response);
  const secondFactor = (params.acr_values ?? '').split(' ').includes(MULTI_FACTOR);
  const page = (status, problem) => {
    response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
    response.end(pages.signIn({ secondFactor, login: params.login_hint, problem }));
  };
  if (request.method !== 'POST') return page(200);
  const sent = await form(request);
  if (sent.cancel) {
    const refused = { error: 'access_denied', error_description: 'The user went back.' };
    return provider.interactionFinished(request, response, refused);
  }
  const account = signIn(sent, secondFactor);
  if (!account) return page(401, 'The name, the password or the code is wrong.');
  const login = secondFactor
    ? { accountId: account, acr: MULTI_FACTOR, amr: ['pwd', 'otp', 'mfa'] }
    : { accountId: account, acr: 'urn:example:password', amr: ['pwd'] };
  return provider.interactionFinished(request, response, { [prompt.name]: login });
}

const callback = provider.callback();
const server = http.createServer((request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  return interact(request, response).catch((error) => {
    response.writeHead(error.status ?? 500, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(pages.error({ error: error.message }));
  });
});
startApp(appPort);
server.listen(port, '127.0.0.1', () => {
  console.log(`The provider is at ${issuer}, the application at http://127.0.0.1:${appPort}.`);
  console.log(`Now start the gateway and open ${gateways[0]}.`);
});
