// A minimal OpenID provider, for bench/stories. It authenticates no user: each authorization is of the next one.
// The response of the token endpoint is signed when the code is issued, so that the endpoint only looks it up.
//   provider.js PORT
// GET /spent returns the milliseconds spent on the gateway's requests since the last call, and their number.
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const client = 'portcullis';
const { publicKey, privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
const head = encode({ alg: 'RS256', kid: 'bench', typ: 'JWT' });

const metadata = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  userinfo_endpoint: `${issuer}/userinfo`,
  jwks_uri: `${issuer}/jwks`,
  response_types_supported: ['code'],
  code_challenge_methods_supported: ['S256'],
  token_endpoint_auth_methods_supported: ['client_secret_basic'],
  id_token_signing_alg_values_supported: ['RS256'],
  subject_types_supported: ['public'],
  authorization_response_iss_parameter_supported: true,
};
const keys = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'bench', alg: 'RS256', use: 'sig' }] };
const issued = new Map();
let users = 0;
let spent = 0;
let requests = 0;

function authorize(query) {
  const code = crypto.randomBytes(16).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const sub = `user-${users += 1}`;
  const profile = { name: 'A User of the Bench', email: `${sub}@example.org`, email_verified: true, groups: ['staff'] };
  const message = `${head}.${encode({
    iss: issuer, aud: client, sub, iat: now, exp: now + 600, auth_time: now, nonce: query.get('nonce'), ...profile,
  })}`;
  const signature = crypto.sign('sha256', Buffer.from(message), privateKey).toString('base64url');
  const tokens = {
    access_token: sub, refresh_token: crypto.randomBytes(32).toString('base64url'), token_type: 'Bearer',
    expires_in: 600, id_token: `${message}.${signature}`,
  };
  issued.set(code, JSON.stringify(tokens));
  issued.set(`Bearer ${sub}`, JSON.stringify({ sub, ...profile }));
  const target = new URL(query.get('redirect_uri'));
  target.search = new URLSearchParams({ code, state: query.get('state'), iss: issuer });
  return target.href;
}

function take(key) {
  const found = issued.get(key);
  issued.delete(key);
  return found;
}

const endpoints = {
  '/.well-known/openid-configuration': () => JSON.stringify(metadata),
  '/jwks': () => JSON.stringify(keys),
  '/token': (request, body) => take(new URLSearchParams(body).get('code')),
  '/userinfo': (request) => take(request.headers.authorization),
};

async function respond(request, response, url) {
  let body = '';
  for await (const chunk of request) body += chunk;
  const found = endpoints[url.pathname]?.(request, body);
  response.writeHead(found ? 200 : 400, { 'Content-Type': 'application/json' });
  response.end(found ?? '{"error":"invalid_request"}');
}

http.createServer((request, response) => {
  const began = performance.now();
  const url = new URL(request.url, issuer);
  if (url.pathname === '/authorize') {
    response.writeHead(302, { Location: authorize(url.searchParams) });
    return response.end();
  }
  if (url.pathname === '/spent') {
    response.end(JSON.stringify({ milliseconds: spent, requests }));
    [spent, requests] = [0, 0];
    return undefined;
  }
  response.on('finish', () => {
    spent += performance.now() - began;
    requests += 1;
  });
  return respond(request, response, url);
}).listen(port, '127.0.0.1');
