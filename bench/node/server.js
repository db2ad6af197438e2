// The full work of an auth gateway as a Node service: verify an HS256 token, check session and blacklist in
// Redis, enforce one limit per user in Redis, set limit headers and identity headers, and forward over
// kept-alive connections. bench/run measures it.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const express = require('express');
const Redis = require('ioredis');
const jwt = require('jsonwebtoken');
const { RateLimiterRedis } = require('rate-limiter-flexible');

const { PORT, UPSTREAM, REDIS, SECRET, WORKERS } = process.env;
const LIMIT = 1000000000;

if (cluster.isPrimary && Number(WORKERS) > 1) {
  for (let worker = 0; worker < Number(WORKERS); worker += 1) cluster.fork();
} else {
  serve();
}

function serve() {
  const redis = new Redis(Number(REDIS), '127.0.0.1');
  const limiter = new RateLimiterRedis({ storeClient: redis, keyPrefix: 'bench:node', points: LIMIT, duration: 60 });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');

  app.use(async (request, response, next) => {
    try {
      const [scheme, token] = (request.headers.authorization || '').split(' ');
      if (scheme !== 'Bearer') return response.status(401).end();
      let claims;
      try {
        claims = jwt.verify(token, SECRET, { algorithms: ['HS256'], issuer: 'portcullis', audience: 'portcullis' });
      } catch {
        return response.status(401).end();
      }
      const [user, listed] = await Promise.all([
        redis.get(`bench:session:${claims.sid}`),
        redis.exists(`bench:black:${claims.jti}`),
      ]);
      if (!user || listed) return response.status(401).end();
      const spent = await limiter.consume(user);
      response.set('RateLimit-Limit', LIMIT);
      response.set('RateLimit-Remaining', spent.remainingPoints);
      response.set('RateLimit-Reset', Math.ceil(spent.msBeforeNext / 1000));
      request.identity = { user, session: claims.sid };
      return next();
    } catch (error) {
      if (error instanceof Error) return response.status(503).end();
      return response.status(429).set('Retry-After', Math.ceil(error.msBeforeNext / 1000)).end();
    }
  });

  app.use((request, response) => {
    const { authorization, connection, ...headers } = request.headers;
    headers['x-user-id'] = request.identity.user;
    headers['x-session-id'] = request.identity.session;
    const options = { agent, headers, host: '127.0.0.1', port: UPSTREAM, method: request.method, path: request.url };
    const onward = http.request(options, (upstreamResponse) => {
      const { connection: hop, 'keep-alive': kept, ...passed } = upstreamResponse.headers;
      response.status(upstreamResponse.statusCode).set(passed);
      upstreamResponse.pipe(response);
    });
    onward.on('error', () => response.headersSent ? response.destroy() : response.status(502).end());
    request.pipe(onward);
  });

  app.listen(Number(PORT), '127.0.0.1', 16384);
}
