// The clients of the tests of dpop.ResourceServer: npm's oauth4webapi and dpop.
//
// The argument is the URL of a resource. It calls that and prints one line of
// JSON, an array of what each call received. An access token is "at." and the
// thumbprint of its key, or "plain".

import * as dpop from 'dpop';
import * as oauth from 'oauth4webapi';

const url = new URL(process.argv[2]);
const results = [];

// call repeats a request that needs a nonce, as the documentation of
// oauth4webapi says, and reports the challenges as that library parsed them.
async function call(name, token, handle, method, body) {
  for (let attempts = 1; ; attempts += 1) {
    try {
      const response = await oauth.protectedResourceRequest(token, method, url, undefined, body, {
        DPoP: handle,
        [oauth.allowInsecureRequests]: true,
      });
      results.push({ name, status: response.status, body: await response.text(), attempts });
      return;
    } catch (err) {
      if (attempts < 3 && oauth.isDPoPNonceError(err)) continue;
      if (!(err instanceof oauth.WWWAuthenticateChallengeError)) throw err;
      results.push({
        name,
        status: err.status,
        attempts,
        challenges: err.cause.map(({ scheme, parameters: { error, algs } }) => ({ scheme, error, algs })),
      });
      return;
    }
  }
}

for (const alg of ['ES256', 'Ed25519', 'PS256', 'RS256']) {
  const handle = oauth.DPoP({ client_id: 'npm' }, await oauth.generateKeyPair(alg));
  const token = `at.${await handle.calculateThumbprint()}`;
  await call(`oauth4webapi ${alg} GET`, token, handle, 'GET');
  await call(`oauth4webapi ${alg} POST`, token, handle, 'POST', 'a body');
}

const owner = oauth.DPoP({ client_id: 'npm' }, await oauth.generateKeyPair('ES256'));
const thief = oauth.DPoP({ client_id: 'npm' }, await oauth.generateKeyPair('ES256'));
const stolen = `at.${await owner.calculateThumbprint()}`;
await call('stolen', stolen, thief, 'GET');
await call('downgraded', stolen, undefined, 'GET');
await call('unknown', 'unknown', owner, 'GET');
await call('unbound, with a proof', 'plain', owner, 'GET');
await call('unbound', 'plain', undefined, 'GET');

for (const alg of ['ES256', 'Ed25519', 'PS256', 'RS256']) {
  const keys = await dpop.generateKeyPair(alg);
  const token = `at.${await dpop.calculateThumbprint(keys.publicKey)}`;
  let nonce;
  for (const method of ['GET', 'POST']) {
    for (let attempts = 1; ; attempts += 1) {
      const proof = await dpop.generateProof(keys, url.origin + url.pathname, method, nonce, token);
      const headers = { Authorization: `DPoP ${token}`, DPoP: proof };
      const response = await fetch(url, { method, headers });
      nonce = response.headers.get('DPoP-Nonce') ?? nonce;
      const body = await response.text();
      if (attempts < 3 && response.headers.get('WWW-Authenticate')?.includes('error="use_dpop_nonce"')) continue;
      results.push({ name: `dpop ${alg} ${method}`, status: response.status, body, attempts });
      if (method === 'POST') {
        const again = await fetch(url, { method, headers });
        results.push({ name: `dpop ${alg} replay`, status: again.status, body: await again.text(), attempts: 1 });
      }
      break;
    }
  }
}

process.stdout.write(`${JSON.stringify(results)}\n`);
