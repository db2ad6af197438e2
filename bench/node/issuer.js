// A token issuer with public-key algorithms, for bench/run.
//   issuer.js keys FOLDER                 creates the keys; writes the private keys and jwks.json
//   issuer.js sign FOLDER TOKENS ISSUER   writes tokens-ALGORITHM: the claims of the tokens in a file, issued
//                                         by ISSUER and signed with each key
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');

const KEYS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};
const [what, folder, tokens, issuer] = process.argv.slice(2);
const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');

if (what === 'keys') {
  const keys = Object.entries(KEYS).map(([algorithm, [kind, options]]) => {
    const { publicKey, privateKey } = crypto.generateKeyPairSync(kind, options);
    fs.writeFileSync(`${folder}/${algorithm}.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    return { ...publicKey.export({ format: 'jwk' }), kid: algorithm, alg: algorithm, use: 'sig' };
  });
  fs.writeFileSync(`${folder}/jwks.json`, JSON.stringify({ keys }));
} else {
  const all = fs.readFileSync(tokens, 'utf8').trim().split('\n')
    .map((token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')));
  for (const algorithm of Object.keys(KEYS)) {
    const key = crypto.createPrivateKey(fs.readFileSync(`${folder}/${algorithm}.pem`));
    const head = encode({ typ: 'at+jwt', alg: algorithm, kid: algorithm });
    const hash = algorithm === 'EdDSA' ? null : 'sha256';
    const signed = all.map((claims) => {
      const message = `${head}.${encode({ ...claims, iss: issuer })}`;
      const signature = crypto.sign(hash, Buffer.from(message), { key, dsaEncoding: 'ieee-p1363' });
      return `${message}.${signature.toString('base64url')}`;
    });
    fs.writeFileSync(`${folder}/tokens-${algorithm}`, `${signed.join('\n')}\n`);
  }
}
