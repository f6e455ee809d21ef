/**
 * The HTTP port for monitoring: `GET /metrics` and `GET /healthz`, nothing else. There is no authentication: whoever
 * reaches the address reads the names of targets and the figures, so it is loopback unless the configuration says
 * otherwise.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { OperationalError } from '../operational-error.js';
import type { Log } from '../iscsi/options.js';

const CONNECTIONS_MAX = 32;
const HEADER_BYTES_MAX = 8 * 1024;
const REQUEST_MS = 5000;
const REQUESTS_PER_CONNECTION_MAX = 1000;

export interface MetricsSource {
  /** Prometheus text format, version 0.0.4. */
  metrics: () => string;
  /** What is wrong; undefined if all is well. */
  fault: () => string | undefined;
}

export interface MetricsAddress {
  host: string;
  port: number;
}

export class MetricsServer {
  readonly #server: Server;
  readonly address: MetricsAddress;

  private constructor(server: Server, address: MetricsAddress) {
    this.#server = server;
    this.address = address;
  }

  /** @throws {OperationalError} METRICS_UNUSABLE */
  static async listen(
    { host, port }: MetricsAddress,
    source: MetricsSource,
    log: Log,
  ): Promise<MetricsServer> {
    const server = createServer(
      {
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: REQUEST_MS,
        requestTimeout: REQUEST_MS,
        keepAliveTimeout: REQUEST_MS,
        connectionsCheckingInterval: 1000,
      },
      (request, response) => {
        try {
          answer(request, response, source);
        } catch (error) {
          log.error({ err: error }, 'a request for metrics failed');
          reply(response, 500, 'failed; see the log\n');
        }
      },
    );
    server.maxConnections = CONNECTIONS_MAX;
    server.maxRequestsPerSocket = REQUESTS_PER_CONNECTION_MAX;
    server.timeout = 2 * REQUEST_MS;
    try {
      server.listen({ host, port });
      await once(server, 'listening');
    } catch (error) {
      const { code = 'error' } = error as NodeJS.ErrnoException;
      throw new OperationalError(
        'METRICS_UNUSABLE',
        `can't listen for metrics on ${host} port ${port} (${code}): choose another address (metrics.listen)`,
        { cause: error },
      );
    }
    server.on('error', (error) => log.error({ err: error }, 'the metrics port failed'));
    return new MetricsServer(server, { host, port: (server.address() as AddressInfo).port });
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function answer(request: IncomingMessage, response: ServerResponse, source: MetricsSource): void {
  // A body that somebody sends is not read: the connection ends instead.
  if (request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined)
    response.setHeader('Connection', 'close');
  const path = (request.url ?? '').replace(/\?.*$/, '');
  if (path !== '/metrics' && path !== '/healthz')
    reply(response, 404, 'only /metrics and /healthz are here\n');
  else if (request.method !== 'GET') {
    response.setHeader('Allow', 'GET');
    reply(response, 405, 'only GET\n');
  } else if (path === '/metrics') {
    reply(response, 200, source.metrics(), 'text/plain; version=0.0.4; charset=utf-8');
  } else {
    const fault = source.fault();
    reply(response, fault === undefined ? 200 : 503, `${fault ?? 'ok'}\n`);
  }
}

function reply(
  response: ServerResponse,
  code: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(code, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(text);
}
