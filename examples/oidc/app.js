// The application behind the gateway. It knows its users by the headers that the gateway adds, and has no
// sign-in of its own.
import http from 'node:http';

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export function startApp(port) {
  http.createServer((request, response) => {
    const user = request.headers['x-user-id'];
    const lines = Object.entries(request.headers)
      .filter(([name]) => name.startsWith('x-user-') || name === 'x-session-id')
      .map(([name, value]) => `<tr><th>${name}</th><td>${escape(value)}</td></tr>`);
    const body = user
      ? `<p id="user">Signed in as ${escape(user)}.</p><table>${lines.join('')}</table>
<p><a href="/api/v1/sign-out">Sign out</a></p>`
      : '<p id="user">Not signed in.</p>';
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Application</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1rem">
<h1>Application</h1><p id="path">${escape(request.url)}</p>${body}
<p><a href="/">Public</a> · <a href="/private">Private</a> · <a href="/admin">Admins</a> ·
<a href="/secure">With a second factor</a></p>`);
  }).listen(port, '127.0.0.1');
}
