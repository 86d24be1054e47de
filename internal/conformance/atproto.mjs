// Another authorization server of the conformance tests: that of atproto, npm's
// @atproto/oauth-provider, and a resource. It requires pushed authorization requests, DPoP
// and nonces, sends a nonce with every response, and ends a session whose refresh token is
// used twice.
//
// It is started and controlled like server.mjs, keeps everything in memory, and has one user.
// The tests do what the script of its pages would: sign in, and consent or reject.

import { createServer } from 'node:http';

import { clock, control, examine, readJSON, startOnceReady } from './common.mjs';

// The library reads the time with Date.now and with new Date.
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...args) {
    super(...(args.length ? args : [clock.now()]));
  }

  static now() { return clock.now(); }
};

const { JoseKey, OAuthProvider } = await import('@atproto/oauth-provider/provider');
const { oauthMiddleware } = await import('@atproto/oauth-provider/middleware');

const account = {
  did: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', pds: 'did:web:pds.example', handle: 'alice.example', deactivated: false,
};
const password = 'correct horse';

// What the stores of the library have: all that there is, in maps.
const authorized = new Map();
const devices = new Map();
const deviceAccounts = new Map();
const requests = new Map();
const tokens = new Map();

const find = (map, has) => [...map].find(([, value]) => has(value));
const asToken = (entry) => (entry ? {
  id: entry[0], data: entry[1].data, account, currentRefreshToken: entry[1].refreshTokens.at(-1) ?? null,
} : null);

const store = {
  authenticateAccount: (data) => {
    if (data.username !== account.handle || data.password !== password) throw new Error('invalid credentials');
    return account;
  },
  getAccount: () => ({ account, authorizedClients: authorized }),
  setAuthorizedClient: (_did, client, data) => { authorized.set(client, data); },
  upsertDeviceAccount: (device) => { deviceAccounts.set(device, new Date()); },
  getDeviceAccount: (device) => (deviceAccounts.has(device) ? {
    account,
    authorizedClients: authorized,
    createdAt: deviceAccounts.get(device),
    deviceData: devices.get(device),
    deviceId: device,
    updatedAt: deviceAccounts.get(device),
  } : null),
  listDeviceAccounts: ({ deviceId }) => [store.getDeviceAccount(deviceId)].filter(Boolean),
  removeDeviceAccount: (device) => { deviceAccounts.delete(device); },

  createDevice: (id, data) => { devices.set(id, data); },
  readDevice: (id) => devices.get(id) ?? null,
  updateDevice: (id, data) => { Object.assign(devices.get(id), data); },
  deleteDevice: (id) => { devices.delete(id); },

  findLexicon: () => null,
  storeLexicon: () => {},
  deleteLexicon: () => {},

  createRequest: (id, data) => { requests.set(id, data); },
  readRequest: (id) => requests.get(id) ?? null,
  updateRequest: (id, data) => { Object.assign(requests.get(id), data); },
  deleteRequest: (id) => { requests.delete(id); },
  consumeRequestCode: (code) => {
    const [requestId, data] = find(requests, (request) => request.code === code) ?? [];
    requests.delete(requestId);
    return data ? { requestId, data } : null;
  },

  createToken: (id, data, refreshToken) => {
    tokens.set(id, { data, refreshTokens: refreshToken ? [refreshToken] : [] });
  },
  readToken: (id) => asToken(tokens.has(id) && [id, tokens.get(id)]),
  deleteToken: (id) => { tokens.delete(id); },
  rotateToken: (id, newId, refreshToken, data) => {
    const old = tokens.get(id);
    tokens.delete(id);
    tokens.set(newId, { data: { ...old.data, ...data }, refreshTokens: [...old.refreshTokens, refreshToken] });
  },
  findTokenByRefreshToken: (token) => asToken(find(tokens, ({ refreshTokens }) => refreshTokens.includes(token))),
  findTokenByCode: (code) => asToken(find(tokens, ({ data }) => data.code === code)),
  listAccountTokens: () => [...tokens].map(asToken),
};
// The rest of what an account store has is for pages that the tests do not open.
for (const name of [
  'createAccount', 'resetPasswordRequest', 'resetPasswordConfirm', 'updateEmailRequest', 'updateEmailConfirm',
  'verifyEmailRequest', 'verifyEmailConfirm', 'verifyHandleAvailability', 'updateHandle', 'deactivateAccount',
  'reactivateAccount', 'deleteAccountRequest', 'deleteAccountConfirm',
]) {
  store[name] = () => { throw new Error(`${name} is not there`); };
}

const server = createServer();
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new OAuthProvider({
  issuer,
  keyset: [await JoseKey.generate(['ES256'], 'key')],
  store,
  tokenMaxAge: 60_000,
  safeFetch: () => { throw new Error('nothing is fetched'); },
});
const middleware = oauthMiddleware(provider);

// resource is a protected resource of the user's server.
async function resource(req, res) {
  res.setHeader('DPoP-Nonce', provider.nextDpopNonce());
  try {
    const { sub } = await provider.authenticateRequest(req.method, new URL(req.url, issuer), req.headers, { audience: [account.pds] });
    res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ sub }));
  } catch (err) {
    res.setHeader('WWW-Authenticate', err.wwwAuthenticateHeader);
    res.writeHead(401, { 'Content-Type': 'application/json' });
    res.end(JSON.stringify({ error: err.error, error_description: err.error_description }));
  }
}

let log = [];

// record notes a request once it is answered, without credentials.
async function record(req, res) {
  const url = new URL(req.url, issuer);
  const [scheme = '', credentials = ''] = (req.headers.authorization ?? '').split(' ');
  const isToken = url.pathname === '/resource' && ['DPoP', 'Bearer'].includes(scheme);
  const proof = await examine(issuer, req.method, url.pathname, req.headers.dpop, isToken ? credentials : '');
  let said = {};
  const { end } = res;
  res.end = function answer(chunk, ...rest) {
    try { said = JSON.parse(chunk); } catch { /* a page, or nothing */ }
    // Before the client has the answer and asks for the log.
    log.push({
      method: req.method,
      path: url.pathname,
      status: res.statusCode,
      error: said.error,
      problem: said.error_description,
      params: [...url.searchParams.keys()].sort(),
      scheme,
      userAgent: req.headers['user-agent'],
      proof,
      newNonce: res.hasHeader('DPoP-Nonce'),
    });
    return end.call(this, chunk, ...rest);
  };
  if (url.pathname === '/resource') return resource(req, res);
  return middleware(req, res, () => res.writeHead(404).end());
}

const controls = control({
  log: () => log,
  forget: () => { log = []; },
  change: () => {}, // there is nothing to change
});

server.on('request', async (req, res) => {
  res.setHeader('Date', new Date().toUTCString());
  const answer = controls[`${req.method} ${req.url}`];
  if (!answer) return record(req, res);
  const body = await answer(() => readJSON(req));
  return res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(body ?? null));
});

const redirect = encodeURIComponent('http://127.0.0.1/auth/callback');
startOnceReady({
  issuer,
  endpoints: {
    authorization: provider.metadata.authorization_endpoint,
    token: provider.metadata.token_endpoint,
    userinfo: `${issuer}/resource`,
    revocation: provider.metadata.revocation_endpoint,
    par: provider.metadata.pushed_authorization_request_endpoint,
  },
  // What atproto calls a loopback client: its identifier says everything of it.
  clients: { native: { id: `http://localhost?redirect_uri=${redirect}&scope=atproto%20transition%3Ageneric`, auth: 'none' } },
  user: { did: account.did, name: account.handle, password },
});
