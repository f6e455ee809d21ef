/** `cldd status`: everything at a glance, once or again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { DaemonStatus } from '../../daemon/status.js';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { print, printJson } from '../output.js';
import { renderPrometheus } from '../../daemon/prometheus.js';
import { renderStatus } from '../render-status.js';
import { parseSeconds } from '../size.js';

interface StatusOptions extends DaemonOptions {
  watch?: number | true;
}

const WATCH_SECONDS = 2;
/** Cursor home and clear to the end (ECMA-48 CUP, ED). */
const CLEAR = '\u001b[H\u001b[2J';

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
  else process.stdout.write(renderPrometheus(current));
}

async function status(target: string | undefined, options: StatusOptions): Promise<void> {
  const fetch = async (): Promise<DaemonStatus> =>
    (await request(options, 'status', target === undefined ? {} : { target })) as DaemonStatus;
  if (options.watch === undefined) {
    const current = await fetch();
    if (options.json) printJson(current);
    else print(renderStatus(current));
    return;
  }
  await watch(fetch, options.watch === true ? WATCH_SECONDS : options.watch, options.json === true);
}

/** Until Ctrl-C. */
async function watch(fetch: () => Promise<DaemonStatus>, seconds: number, json: boolean): Promise<void> {
  const end = new AbortController();
  process.once('SIGINT', () => end.abort());
  process.once('SIGTERM', () => end.abort());
  let before: { status: DaemonStatus; atMs: number } | undefined;
  while (!end.signal.aborted) {
    const current = await fetch();
    const atMs = performance.now();
    if (json) print(JSON.stringify(current));
    else {
      const previous = before && { status: before.status, elapsedMs: atMs - before.atMs };
      print(`${process.stdout.isTTY ? CLEAR : ''}${renderStatus(current, previous)}`);
    }
    before = { status: current, atMs };
    await sleep(seconds * 1000, undefined, { signal: end.signal }).catch(() => undefined);
  }
}
