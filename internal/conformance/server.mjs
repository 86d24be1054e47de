// The authorization server of the conformance tests: oidc-provider, configured
// as strictly as a client of this module may meet it, and a record of what it
// received.
//
// It listens on a free port of 127.0.0.1, prints one line of JSON when it is
// ready and ends when its standard input closes. It holds test clients only and
// is not fit for anything else.
//
// Control routes, for the tests:
//   GET    /_test/log       what was received, as JSON, oldest first
//   DELETE /_test/log       forget it
//   PUT    /_test/settings  {"accessTokenTTL": s, "requireNonce": bool, "deny": bool}: any of them
//   POST   /_test/clock     {"stop": true}: stops it, at the start of a minute;
//                           {"advance": s}: puts it forward;
//                           answers {"now": ms since the epoch}

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

import { exportJWK, generateKeyPair } from 'jose';

import {
  algorithms, clock, control, examine, readJSON, startOnceReady,
} from './common.mjs';

const { Provider, errors } = await import('oidc-provider');

const account = 'alice';
const settings = { accessTokenTTL: 300, requireNonce: true, deny: false };

// The library reads the time with Date.now: nonces and tokens age with it. The
// Date header is set from it too, so that the server has one clock.
Date.now = clock.now;

const clients = {
  native: { id: 'native', auth: 'none' },
  basic: { id: 'confidential-basic', auth: 'client_secret_basic', secret: 'b:a+s/i%c&= secret' },
  // %41 is an A to a server that decodes what the client did not encode.
  post: { id: 'confidential-post', auth: 'client_secret_post', secret: 'p:o+s/%41&= t secret' },
  pushing: { id: 'pushing', auth: 'none', more: { require_pushed_authorization_requests: true } },
  jwt: { id: 'confidential-jwt', auth: 'private_key_jwt', ...await newClientKey() },
};

// newClientKey is the key of a client, which the tests have as well.
async function newClientKey() {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = 'client-key';
  return {
    key: { ...await exportJWK(privateKey), kid },
    more: { jwks: { keys: [{ ...await exportJWK(publicKey), kid, alg: 'ES256', use: 'sig' }] } },
  };
}

const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';
const api = {
  scope: 'api:read', audience: 'https://api.example/v1', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
};

function metadata({ id, auth, secret, more }) {
  return {
    client_id: id,
    ...(secret && { client_secret: secret }),
    token_endpoint_auth_method: auth,
    // RFC 8252 §7.3: on a loopback redirect URI any port will do.
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/auth/callback'],
    grant_types: ['authorization_code', 'refresh_token', deviceGrant],
    response_types: ['code'],
    id_token_signed_response_alg: 'ES256',
    dpop_bound_access_tokens: true,
    ...more,
  };
}

async function configuration() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  return {
    clients: Object.values(clients).map(metadata),
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    clientBasedCORS: () => false,
    clockTolerance: 0, // a token ends when it says so
    cookies: { keys: [randomBytes(32).toString('hex')] },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      dPoP: {
        enabled: true,
        nonceSecret: randomBytes(32),
        requireNonce: () => settings.requireNonce,
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => {
          if (resource !== api.audience) throw new errors.InvalidTarget();
          return { ...api, accessTokenTTL: settings.accessTokenTTL };
        },
      },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: false },
    },
    enabledJWA: { dPoPSigningAlgValues: algorithms },
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys: [{ ...await exportJWK(privateKey), alg: 'ES256', use: 'sig' }] },
    pkce: { required: () => true },
    renderError: (ctx, out) => { ctx.body = out; },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access'],
    ttl: {
      AccessToken: () => settings.accessTokenTTL,
      AuthorizationCode: 60,
      DeviceCode: 600,
      Grant: 86400,
      IdToken: 300,
      Interaction: 300,
      RefreshToken: 86400,
      Session: 3600,
    },
  };
}

// consent answers as a person would who signs in and agrees to everything, or
// to nothing.
async function consent(ctx, next) {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  if (settings.deny) {
    ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, {
      error: 'access_denied',
      error_description: 'the user said no',
    }));
    return undefined;
  }
  const grant = new provider.Grant({ accountId: account, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, api.scope);
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, {
    login: { accountId: account },
    consent: { grantId: await grant.save() },
  }));
  return undefined;
}

let log = [];
const details = new WeakMap();

// record notes each request before it is answered. No secret, token, code or
// nonce is noted: of parameters only the names.
async function record(ctx, next) {
  const [scheme = '', credentials = ''] = ctx.get('Authorization').split(' ');
  const isToken = ['DPoP', 'Bearer'].includes(scheme);
  const proof = await examine(provider.issuer, ctx.method, ctx.path, ctx.get('DPoP'), isToken ? credentials : '');
  let status;
  try {
    await next();
  } catch (err) {
    status = err.statusCode ?? 500;
    throw err;
  } finally {
    const body = ctx.oidc?.body ?? {};
    const names = new Set([...Object.keys(ctx.query), ...Object.keys(body)]);
    log.push({
      method: ctx.method,
      path: ctx.path,
      status: status ?? ctx.status,
      error: ctx.body?.error,
      problem: ctx.body?.error_description,
      detail: details.get(ctx),
      client: ctx.oidc?.client?.clientId,
      grantType: body.grant_type,
      params: [...names].sort(),
      scheme,
      userAgent: ctx.get('User-Agent'),
      proof,
      newNonce: Boolean(ctx.response.get('DPoP-Nonce')),
    });
  }
}

const controls = control({
  log: () => log,
  forget: () => { log = []; },
  change: (changed) => { Object.assign(settings, changed); },
});

const server = createServer();
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const provider = new Provider(`http://127.0.0.1:${server.address().port}`, await configuration());
provider.on('server_error', (_ctx, err) => console.error(err));
for (const event of ['grant.error', 'userinfo.error', 'revocation.error']) {
  provider.on(event, (ctx, err) => details.set(ctx, err.error_detail));
}
provider.use((ctx, next) => {
  ctx.set('Date', new Date(Date.now()).toUTCString());
  const answer = controls[`${ctx.method} ${ctx.path}`];
  return answer ? answer(() => readJSON(ctx.req)).then((body) => { ctx.body = body ?? null; }) : record(ctx, next);
});
provider.use(consent);
server.on('request', provider.callback());

startOnceReady({
  issuer: provider.issuer,
  endpoints: {
    authorization: provider.urlFor('authorization'),
    token: provider.urlFor('token'),
    userinfo: provider.urlFor('userinfo'),
    revocation: provider.urlFor('revocation'),
    par: provider.urlFor('pushed_authorization_request'),
    device: provider.urlFor('device_authorization'),
  },
  clients,
});
