// The provider's own pages.
import { accounts, CODE } from './accounts.js';

const escape = (text) => String(text ?? '').replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 22rem; margin: 10vh auto; padding: 0 1rem }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
input, button { padding: .5rem; margin: .25rem 0 1rem }
[role=alert] { color: #b00020 }
</style></head><body><main><h1>${title}</h1>${body}</main></body></html>`;

export function signIn({ secondFactor, login, problem }) {
  const known = Object.entries(accounts).map(([id, { password }]) => `<li>${id} / ${password}</li>`);
  return page('Example provider', `
${problem ? `<p role="alert">${problem}</p>` : ''}
<form method="post">
<label for="login">Name</label><input id="login" name="login" value="${escape(login)}" autocomplete="username">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password">
${secondFactor ? `<label for="code">Code (it is ${CODE})</label>
<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code">` : ''}
<button id="submit">Sign in</button>
<button id="cancel" name="cancel" value="1">Cancel</button>
</form>
<p>Accounts of this example:</p><ul>${known.join('')}</ul>`);
}

export const signOut = (form) => page('Sign out of the example provider?', `${form}
<button id="yes" form="op.logoutForm" name="logout" value="yes">Sign out</button>
<button id="no" form="op.logoutForm">Stay signed in here</button>`);

export const signedOut = () => page('Signed out', '<p>You are signed out of the example provider.</p>');

export const error = (out) => page('This did not work', Object.entries(out)
  .map(([name, value]) => `<p>${escape(name)}: ${escape(value)}</p>`).join(''));
