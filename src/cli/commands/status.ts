/** `cldd status`: everything at a glance, once or again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { UNREACHABLE } from '../../admin/client.js';
import { renderPrometheus } from '../../daemon/prometheus.js';
import type { DaemonStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { UsageError } from '../exit-codes.js';
import { print, printJson } from '../output.js';
import { renderStatus } from '../render-status.js';
import type { Previous } from '../render-status.js';
import { frame } from '../screen.js';
import { parseSeconds } from '../size.js';

interface StatusOptions extends DaemonOptions {
  watch?: number | true;
}

const WATCH_SECONDS = 2;

export function addStatus(program: Command): void {
  withDaemon(program.command('status [target]'))
    .description('Show targets, slaves, who holds them, sessions and I/O.')
    .option('-w, --watch [seconds]', 'show it again and again, with rates', parseSeconds)
    .addHelpText(
      'after',
      examples('cldd status', 'cldd status --watch', 'cldd status --json | jq .targets[0].slave'),
    )
    .action(status);
  withDaemon(program.command('metrics'))
    .description("Print the status as Prometheus metrics, for node_exporter's textfile collector.")
    .addHelpText(
      'after',
      examples('cldd metrics > /var/lib/node_exporter/cldd.tmp && mv /var/lib/node_exporter/cldd.{tmp,prom}'),
    )
    .action(metrics);
}

async function metrics(options: DaemonOptions): Promise<void> {
  const current = (await request(options, 'status')) as DaemonStatus;
  if (options.json) printJson(current);
  else if (!options.quiet) process.stdout.write(renderPrometheus(current));
}

async function status(target: string | undefined, options: StatusOptions): Promise<void> {
  const fetch = async (): Promise<DaemonStatus> =>
    (await request(options, 'status', target === undefined ? {} : { target })) as DaemonStatus;
  if (options.watch !== undefined && options.quiet === true)
    throw new UsageError('--watch shows something, and --quiet does not: leave one of them away');
  if (options.watch === undefined) {
    const current = await fetch();
    if (options.json) printJson(current);
    else if (!options.quiet) print(renderStatus(current));
    return;
  }
  await watch(fetch, options.watch === true ? WATCH_SECONDS : options.watch, options.json === true);
}

interface Seen {
  status: DaemonStatus;
  atMs: number;
}

/** Until Ctrl-C. A daemon that is being restarted is waited for, once it has answered. */
async function watch(fetch: () => Promise<DaemonStatus>, seconds: number, json: boolean): Promise<void> {
  const end = new AbortController();
  process.once('SIGINT', () => end.abort());
  process.once('SIGTERM', () => end.abort());
  let before: Seen | undefined;
  while (!end.signal.aborted) {
    try {
      const seen: Seen = { status: await fetch(), atMs: performance.now() };
      if (json) print(JSON.stringify(seen.status));
      else show(renderStatus(seen.status, since(before, seen)));
      before = seen;
    } catch (error) {
      const away = error instanceof OperationalError && error.code === UNREACHABLE;
      if (!away || before === undefined) throw error;
      if (!json && process.stdout.isTTY) show(`${error.message}\n\nwaiting for it; Ctrl-C ends this`);
      else process.stderr.write(`cldd: ${error.message}\n`);
    }
    await sleep(seconds * 1000, undefined, { signal: end.signal }).catch(() => undefined);
  }
  if (!json && process.stdout.isTTY) print('');
}

function since(before: Seen | undefined, { atMs }: Seen): Previous | undefined {
  return before && { status: before.status, elapsedMs: atMs - before.atMs };
}

function show(text: string): void {
  const { isTTY, columns, rows } = process.stdout;
  if (isTTY) process.stdout.write(frame(text, { columns, rows }));
  else print(text);
}
