// Keys, sessions and grants of the provider in one file, so that a restart signs no user out. The file is
// written at every change: right for an example, slow for anything else.
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

const GRANTABLE = ['AccessToken', 'AuthorizationCode', 'RefreshToken'];

export class Store {
  constructor(file) {
    this.file = file;
    try {
      this.state = JSON.parse(readFileSync(file, 'utf8'));
    } catch {
      this.state = { entries: {} };
    }
    this.adapter = (model) => new Adapter(this, model);
  }

  save() {
    const now = Date.now();
    for (const [key, { expires }] of Object.entries(this.state.entries)) {
      if (expires && expires < now) delete this.state.entries[key];
    }
    writeFileSync(`${this.file}.new`, JSON.stringify(this.state), { mode: 0o600 });
    renameSync(`${this.file}.new`, this.file);
  }

  // Each key has an ID of its own, so that gateways recognize a new one.
  signingKeys() {
    this.state.keys ??= [
      generateKeyPairSync('rsa', { modulusLength: 2048 }),
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      generateKeyPairSync('ec', { namedCurve: 'P-384' }),
      generateKeyPairSync('ed25519'),
    ].map(({ privateKey }) => ({ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig' }));
    this.save();
    return this.state.keys;
  }

  secret() {
    this.state.secret ??= randomBytes(32).toString('hex');
    this.save();
    return this.state.secret;
  }
}

// The interface that oidc-provider defines for its storage.
class Adapter {
  constructor(store, model) {
    this.store = store;
    this.model = model;
  }

  get entries() {
    return this.store.state.entries;
  }

  async upsert(id, payload, expiresIn) {
    const expires = expiresIn ? Date.now() + expiresIn * 1000 : undefined;
    this.entries[`${this.model}:${id}`] = { payload, expires };
    this.store.save();
  }

  async find(id) {
    const found = this.entries[`${this.model}:${id}`];
    return found && !(found.expires < Date.now()) ? found.payload : undefined;
  }

  async findByUid(uid) {
    const found = Object.entries(this.entries)
      .find(([key, { payload }]) => key.startsWith(`${this.model}:`) && payload.uid === uid);
    return found && this.find(found[0].slice(this.model.length + 1));
  }

  async findByUserCode() {
    return undefined;
  }

  async consume(id) {
    this.entries[`${this.model}:${id}`].payload.consumed = Math.floor(Date.now() / 1000);
    this.store.save();
  }

  async destroy(id) {
    delete this.entries[`${this.model}:${id}`];
    this.store.save();
  }

  async revokeByGrantId(grantId) {
    for (const [key, { payload }] of Object.entries(this.entries)) {
      const [model] = key.split(':');
      if (GRANTABLE.includes(model) && payload.grantId === grantId) delete this.entries[key];
    }
    this.store.save();
  }
}
