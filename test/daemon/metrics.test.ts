/** What monitoring sees: the HTTP port, the dashboard and the alert rules, and the log of slow commands. */
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { load } from 'js-yaml';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { run } from '../../conformance/support/processes.js';
import { Partition } from '../../src/cow/partition.js';
import { LATENCY_BOUNDS_SECONDS, Latencies } from '../../src/scsi/latency.js';
import { packageRoot } from '../package-root.js';
import { serve, target, url } from './support.js';

const needs = needing('qemu-io');
const PORTALS = [{ listen: '127.0.0.1:0' }];
const MONITORED = () => ({ portals: PORTALS, metrics: { listen: '127.0.0.1:0' }, targets: [target('one')] });

interface Answer {
  code: number;
  body: string;
  headers: Record<string, unknown>;
}

async function http(port: number, path: string, method = 'GET'): Promise<Answer> {
  const asked = request({ host: '127.0.0.1', port, path, method }).end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return { code: response.statusCode ?? 0, body: await text(response), headers: response.headers };
}

void tap.test('the histogram puts a time into the first bucket whose bound it is below', (t) => {
  const latencies = new Latencies();
  const spans = [0, 0.004, 0.0079, 0.0081, 1, 1000, 8000, 9000, 1e7];
  for (const span of spans) latencies.add(0x28, span);
  const { counts, sumSeconds } = latencies.figures().read;
  const expected = counts.map(
    (_, index) =>
      spans.filter((span) => {
        const bucket = LATENCY_BOUNDS_SECONDS.findIndex((bound) => span / 1000 < bound);
        return (bucket < 0 ? LATENCY_BOUNDS_SECONDS.length : bucket) === index;
      }).length,
  );
  t.same(counts, expected);
  t.equal(counts.length, LATENCY_BOUNDS_SECONDS.length + 1);
  t.ok(Math.abs(sumSeconds - spans.reduce((a, b) => a + b) / 1000) < 1e-6);
  t.equal(latencies.figures().write.sumSeconds, 0);
  t.end();
});

void tap.test('GET /metrics tells what happened, by unit and class of command', needs, async (t) => {
  const { daemon } = await serve(t, ['one'], MONITORED);
  const port = daemon.status().metrics?.port ?? 0;
  await run('qemu-io', [
    '-f',
    'raw',
    '-c',
    'write 0 64k',
    '-c',
    'read 0 64k',
    '-c',
    'flush',
    url(daemon, 'one'),
  ]);
  await daemon.target(undefined).enable({});
  const { code, body, headers } = await http(port, '/metrics');
  t.equal(code, 200);
  t.match(headers['content-type'], /^text\/plain; version=0\.0\.4/);
  const value = (pattern: string): number => Number(new RegExp(`^${pattern} (\\S+)$`, 'm').exec(body)?.[1]);
  const one = 'target="iqn.2026-01.com.example:one"';
  t.equal(value(`cldd_write_bytes_total{${one},unit="master"}`), 65_536);
  t.equal(value(`cldd_slave_enabled{${one}}`), 1);
  t.ok(value(`cldd_slave_age_seconds{${one}}`) >= 0);
  t.equal(value('cldd_logins_total'), 1);
  t.ok(value('cldd_memory_bytes{kind="rss"}') > 1e6);
  for (const kind of ['read', 'write', 'flush']) {
    const labels = `{${one},unit="master",class="${kind}"}`;
    const total = value(`cldd_command_duration_seconds_count${labels}`);
    t.ok(total >= 1, `${kind} commands are timed`);
    t.equal(value(`cldd_command_duration_seconds_bucket${labels.replace('}', ',le="\\+Inf"}')}`), total);
    const seconds = value(`cldd_command_duration_seconds_sum${labels}`);
    t.ok(seconds > 0 && seconds < 60, `${kind} took ${seconds} s`);
  }
  const typed = new Set(
    [...body.matchAll(/^# TYPE (\S+) (?:gauge|counter|histogram)$/gm)].map(([, name]) => name),
  );
  for (const line of body.split('\n').filter((line) => line !== '' && !line.startsWith('#'))) {
    const [, name = ''] =
      /^([a-z0-9_]+)(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? \d+(?:\.\d+)?(?:e[+-]\d+)?$/.exec(line) ?? [];
    t.ok(typed.has(name) || typed.has(name.replace(/_(bucket|sum|count)$/, '')), line);
  }

  const named = ['grafana-dashboard.json', 'cldd.rules.yaml'].flatMap((name) => [
    ...readFileSync(join(packageRoot(), 'packaging/monitoring', name), 'utf8').matchAll(/\bcldd_[a-z_]+\b/g),
  ]);
  t.ok(named.length > 40);
  for (const name of new Set(named.map(([name]) => name)))
    t.match(body, new RegExp(`^${name}[ {]`, 'm'), `${name} of the dashboard or the rules exists`);

  const expressions = ['grafana-dashboard.json', 'cldd.rules.yaml'].flatMap((name) =>
    // JSON is YAML.
    expressionsIn(load(readFileSync(join(packageRoot(), 'packaging/monitoring', name), 'utf8'))),
  );
  t.ok(expressions.length > 35);
  for (const expression of expressions) {
    const metrics = [...expression.matchAll(/\b(cldd_[a-z_]+)(?:\{([^}]*)\})?/g)];
    t.ok(metrics.length > 0, expression);
    const samplesOf = (name: string): string[] => body.match(new RegExp(`^${name}[ {].*$`, 'gm')) ?? [];
    for (const [, name = '', selector = ''] of metrics)
      for (const [, label = '', wanted = ''] of selector.matchAll(/(\w+)=~?"([^"]*)"/g))
        for (const value of wanted.startsWith('$') ? ['[^"]+'] : wanted.split('|'))
          t.ok(
            samplesOf(name).some((sample) => new RegExp(`[{,]${label}="${value}"`).test(sample)),
            `${name} has ${label}="${value}"`,
          );
    for (const [, list = ''] of expression.matchAll(/\bby \(([^)]*)\)/g))
      for (const label of list.split(/, */))
        t.ok(
          metrics.some(([, name = '']) => samplesOf(name).some((sample) => sample.includes(`${label}="`))),
          `a sum by ${label}`,
        );
  }
});

/** Every `expr` in it, wherever that stands. */
function expressionsIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === 'expr' && typeof inner === 'string' ? [inner] : expressionsIn(inner),
  );
}

void tap.test('the HTTP port answers nothing else, and is not there unless asked for', async (t) => {
  const { daemon, configure } = await serve(t, ['one'], MONITORED);
  const port = daemon.status().metrics?.port ?? 0;
  t.same(await http(port, '/healthz').then(({ code, body }) => [code, body]), [200, 'ok\n']);
  t.equal((await http(port, '/')).code, 404);
  t.equal((await http(port, '/metrics/../etc/passwd')).code, 404);
  const posted = await http(port, '/metrics', 'POST');
  t.equal(posted.code, 405);
  t.equal(posted.headers['allow'], 'GET');
  const rude = connect(port, '127.0.0.1');
  rude.write(`GET /metrics HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`);
  t.match(await text(rude), /^HTTP\/1\.1 431 /, 'a header beyond the limit');
  configure({ portals: PORTALS, targets: [target('one')] });
  t.same((await daemon.reload()).settings, ['metrics']);
  t.equal(daemon.status().metrics, null);
  await t.rejects(http(port, '/metrics'), { code: 'ECONNREFUSED' });
});

void tap.test(
  'a slow command is logged with its initiator, and a healthy partition says so',
  needs,
  async (t) => {
    const slow = async (path: string) => {
      const partition = await Partition.open(path);
      const { master } = partition;
      const flush = master.flush.bind(master);
      master.flush = (done) => flush((result) => setTimeout(() => done(result), 60));
      return partition;
    };
    const configuration = () => ({ portals: PORTALS, targets: [target('one')], slowIoMs: 50 });
    const { daemon, log } = await serve(t, ['one'], configuration, slow);
    await run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', '-c', 'flush', url(daemon, 'one')]);
    const [told] = log.filter(({ message }) => message === 'slow I/O');
    t.match(told, {
      level: 'warn',
      unit: 'master',
      class: /write|flush/,
      opcode: /^0x..$/,
      address: '127.0.0.1',
    });
    t.match(told?.['initiator'], /^iqn\./);
    t.ok(Number(told?.['tookMs']) >= 50);
  },
);
