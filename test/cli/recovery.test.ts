/** docs/recovery.md: each procedure on what it is for, by the commands as they stand there. */
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running } from '../../conformance/support/processes.js';
import type { Finished } from '../../conformance/support/processes.js';
import { PROGRAM, Served, WAIT_MS, env, scratch, until } from './support.js';

tap.setTimeout(290_000);
const folder = scratch('recovery');
const needs = needing('qemu-io', 'qemu-img');
const bin = join(folder, 'bin');
mkdirSync(bin);
// `ssh HOST COMMAND` notes what it was to do elsewhere.
writeFileSync(join(bin, 'ssh'), `#!/bin/sh\necho "$*" >> ${folder}/ssh\n`, { mode: 0o755 });
writeFileSync(join(bin, 'cldd'), `#!/bin/sh\nexec ${PROGRAM} "$@"\n`, { mode: 0o755 });

/** The commands under a heading, a line each, without the remarks behind them. */
function commands(heading: string): string[] {
  const text = readFileSync(join(ROOT, 'docs/recovery.md'), 'utf8');
  const section = text.split(/^## /m).find((one) => one.startsWith(heading)) ?? '';
  const lines = [...section.matchAll(/^ {4}(cldd .*)$/gm)].map(([, line]) => line.replace(/\s+# .*$/, ''));
  if (lines.length === 0) throw new Error(`no commands under ${heading}`);
  return lines;
}

let count = 0;
class Site {
  readonly served: Served;
  readonly place: string;
  /** In the place of /dev/sdc1: as large as the partition, and empty. */
  readonly fresh: string;

  private constructor(served: Served, place: string) {
    this.served = served;
    this.place = place;
    this.fresh = join(place, 'new');
  }

  static async start(t: Pick<typeof tap, 'teardown'>): Promise<Site> {
    const place = join(folder, String(count++));
    const served = await Served.start(t, place);
    const site = new Site(served, place);
    writeFileSync(site.fresh, Buffer.alloc(statSync(served.partition).size));
    return site;
  }

  line(command: string): string {
    const text = command
      .replaceAll('/dev/sdb1', this.served.partition)
      .replaceAll('/dev/sdc1', this.fresh)
      .replaceAll('/backup/files', this.served.backups)
      .replaceAll('/backup/', `${this.place}/`);
    if (text.includes('/dev/')) throw new Error(`a place is not the test's own: ${text}`);
    return text;
  }

  #environment(): NodeJS.ProcessEnv {
    return { ...env, PATH: `${bin}:${process.env['PATH'] ?? ''}`, CLDD_SOCKET: this.served.socket };
  }

  run(command: string): Promise<Finished> {
    return run('sh', ['-c', this.line(command)], { env: this.#environment(), timeoutMs: 120_000 });
  }

  begin(command: string): Running {
    return new Running('sh', ['-c', `exec ${this.line(command)}`], { env: this.#environment() });
  }
}

void tap.test('The power failed, or something was killed, during a backup', needs, async (t) => {
  const site = await Site.start(t);
  const { served } = site;
  await served.write(5, '0', '6M');
  const [nightly, thaw] = commands('The power failed');
  const killed = site.begin(`${nightly} --rate 1M`);
  await until('the copy', () =>
    readdirSync(served.backups).some(
      (name) => name.endsWith('.partial') && statSync(join(served.backups, name)).size > 1 << 20,
    ),
  );
  await killed.end('SIGKILL');
  const again = await site.run(nightly);
  t.equal(again.code, EXIT.DONE, 'it finishes what was begun');
  t.match(again.stdout, /resumed/);
  t.ok(await served.disabled());
  const thawed = await site.run(thaw);
  t.same([thawed.code, thawed.stdout], [EXIT.DONE, 'nothing is left to thaw\n']);
});

void tap.test('It failed during a restore, and the disc died', needs, async (t) => {
  const site = await Site.start(t);
  const { served } = site;
  // More than lies between two durable points is in test/cli/interrupted.test.ts.
  await served.write(6, '1M', '7M');
  const expected = await served.image();
  t.equal((await served.ask('backup', '--to', served.backups)).code, EXIT.DONE);
  await served.daemon.end('SIGKILL');
  rmSync(served.partition);
  const [verify, init, restore, serve] = commands('The disc died');
  t.equal((await site.run(verify)).code, EXIT.DONE);
  t.equal((await site.run(init)).code, EXIT.DONE);
  const killed = site.begin(`${restore} --rate 1M`);
  await until('its mark', () => readdirSync(served.backups).some((name) => name.startsWith('.restoring-')));
  await killed.end('SIGKILL');
  const [again] = commands('It failed during a restore');
  const done = await site.run(again);
  t.equal(done.code, EXIT.DONE, done.stderr);
  const daemon = site.begin(`${serve} --portal 127.0.0.1:0 --socket ${served.socket}`);
  t.teardown(() => daemon.end());
  const [, target = '', portal = ''] = await daemon.waitFor(/^cldd ready: (\S+) on (\S+),1/m, WAIT_MS);
  served.url = `iscsi://${portal}/${target}/0`;
  t.ok((await served.image()).equals(expected));
  const first = await served.ask('backup', '--to', served.backups, '--incremental');
  t.match(first.stderr, /no earlier backup of this partition in that folder/, 'its first backup is full');
});

void tap.test('I enabled too early, or forgot to disable', needs, async (t) => {
  const site = await Site.start(t);
  const { served } = site;
  t.equal((await served.ask('slave', 'enable')).code, EXIT.DONE);
  for (const pattern of [1, 2, 3]) await served.write(pattern, '0', '15M');
  t.equal((await served.ask('backup', '--to', served.backups)).code, EXIT.REFUSED, 'nothing filled up');
  const [disable] = commands('I enabled too early');
  t.equal((await site.run(disable)).code, EXIT.DONE);
  t.equal((await served.ask('backup', '--to', served.backups)).code, EXIT.DONE);
});

void tap.test('The LUN answers HARDWARE ERROR', needs, async (t) => {
  const site = await Site.start(t);
  const [status, check] = commands('The LUN answers HARDWARE ERROR');
  t.equal((await site.run(status)).code, EXIT.DONE);
  await site.served.daemon.end();
  const checked = await site.run(check);
  t.equal(checked.code, EXIT.DONE, `${checked.stdout}${checked.stderr}`);
});

void tap.test('The partition was copied', needs, async (t) => {
  const site = await Site.start(t);
  const { served } = site;
  await served.write(8, '0', '2M');
  const expected = await served.image();
  await served.daemon.end();
  const copy = join(site.place, 'copy');
  copyFileSync(served.partition, copy);
  await served.serve();
  const beside = ['serve', '--partition', copy, '--portal', '127.0.0.1:0', '--socket', `${served.socket}2`];
  const refused = await run(PROGRAM, beside, { env });
  t.equal(refused.code, EXIT.REFUSED);
  t.match(refused.stderr, /a copy of a partition can't be served beside its original/);
  await served.daemon.end();
  await served.serve(copy);
  const [backup, init, restore] = commands('The partition was copied');
  for (const command of [backup, init, restore]) {
    const done = await site.run(command);
    t.equal(done.code, EXIT.DONE, `${command}: ${done.stderr}`);
  }
  await served.daemon.end();
  await served.serve();
  const own = [...beside.with(2, site.fresh), '--target', 'iqn.2026-01.org.example:own'];
  const second = new Running(PROGRAM, own, { env });
  t.teardown(() => second.end());
  const [, target = '', portal = ''] = await second.waitFor(/^cldd ready: (\S+) on (\S+),1/m, WAIT_MS);
  served.url = `iscsi://${portal}/${target}/0`;
  t.ok((await served.image()).equals(expected), 'the new one is served beside the original');
});
