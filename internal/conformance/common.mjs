// What the authorization servers of the conformance tests have in common.

import { createHash } from 'node:crypto';

import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose';

// The first line on stdout is ours: what a library has to say goes to stderr.
console.log = console.error;
console.info = console.error;

const realNow = Date.now;
let stopped;
let ahead = 0;

export const clock = {
  now: () => (stopped ?? realNow()) + ahead,
  set: ({ stop, advance = 0 }) => {
    if (stop) stopped = Math.floor(realNow() / 60_000) * 60_000;
    ahead += advance * 1000;
  },
};

export async function readJSON(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString('utf8'));
}

// control returns the control routes: functions that get one for the body, and return
// what to answer.
export function control({ log, forget, change }) {
  return {
    'GET /_test/log': async () => log(),
    'DELETE /_test/log': async () => forget(),
    'PUT /_test/settings': async (body) => change(await body()),
    'POST /_test/clock': async (body) => {
      clock.set(await body());
      return { now: clock.now() };
    },
  };
}

export const algorithms = ['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519', 'PS256', 'RS256'];
const seen = new Set();

// examine checks a proof apart from the library, as RFC 9449 §4.3 lists it. The
// nonce is left to the library: only it knows which it gave.
export async function examine(issuer, method, path, proof, token) {
  if (!proof) return undefined;
  const found = { verified: false };
  try {
    const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, { algorithms, typ: 'dpop+jwt' });
    const { htm, htu, jti, iat, nonce, ath } = payload;
    Object.assign(found, {
      alg: protectedHeader.alg,
      jkt: await calculateJwkThumbprint(protectedHeader.jwk),
      htm, htu, jti,
      nonce: nonce !== undefined,
      ath: ath !== undefined,
    });
    const wanted = token && createHash('sha256').update(token).digest('base64url');
    found.problem = [
      [htm !== method, 'htm is not the method'],
      [htu !== issuer + path, 'htu is not the normalised URL of the request'],
      [typeof jti !== 'string' || jti === '', 'jti is missing'],
      [seen.has(jti), 'jti was seen before'],
      [!(Math.abs(clock.now() / 1000 - iat) <= 300), 'iat is missing or not recent'],
      [ath !== (wanted || undefined), wanted ? 'ath is not the hash of the access token' : 'ath without an access token'],
    ].find(([bad]) => bad)?.[1];
    seen.add(jti);
    found.verified = found.problem === undefined;
  } catch (err) {
    found.problem = err.message;
  }
  return found;
}

// startOnceReady prints the line for the tests, and ends the program with its input.
export function startOnceReady(line) {
  process.stdin.on('end', () => process.exit(0)).resume();
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
