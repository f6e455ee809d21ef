/** Every command in a process of its own: what --dry-run leaves alone, what --quiet keeps quiet, and what wants --yes. */
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { needing } from '../../conformance/support/clients.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { commandsOf } from '../../packaging/manual/pages.js';
import { createFolder } from '../../src/cli/backup/folder.js';
import { createProgram } from '../../src/cli/program.js';
import { PROGRAM, WAIT_MS, cldd, env, parse, scratch, until } from './support.js';

tap.setTimeout(400_000);
const folder = scratch('commands');
const at = (name: string): string => join(folder, name);
const TARGET = 'iqn.2026-01.org.example:walk';
const socket = at('s');

/** The program with the daemon's socket, where a command has such a thing. */
const ask = (...args: string[]): ReturnType<typeof cldd> =>
  run(PROGRAM, args, { env: { ...env, CLDD_SOCKET: socket }, timeoutMs: 120_000 });

interface Example {
  /** Of the command in `--help` of which it is one. */
  name: string;
  args: readonly string[];
  /** How it ends if all is as it is here; 0 else. */
  code?: number;
}

const configuration = (level: string): string =>
  JSON.stringify({
    portals: [{ listen: '127.0.0.1:0' }],
    controlSocket: socket,
    logLevel: level,
    targets: [{ name: TARGET, partition: at('p'), access: [{ initiator: '*' }] }],
  });

/** What no dry run may touch: the daemon's state, and every byte of every file. */
async function world(): Promise<string> {
  const status = parse((await ask('status', '--json')).stdout);
  const { targets, logLevel, portals } = status as {
    targets: { slave: object; sessions: object[] }[];
  } & Record<'logLevel' | 'portals', unknown>;
  const [{ slave, sessions }] = targets;
  const files = (place: string): string[] =>
    readdirSync(place, { withFileTypes: true }).flatMap((entry) => {
      const path = join(place, entry.name);
      if (entry.isDirectory()) return files(path);
      if (!entry.isFile()) return [];
      return `${path} ${statSync(path).size} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
    });
  return JSON.stringify([slave, sessions, logLevel, portals, files(folder)], undefined, 1);
}

void tap.test('all commands', needing('qemu-io'), async (t) => {
  for (const name of ['p', 'other', 'bad'])
    await succeed(PROGRAM, ['init', at(name), '--size', '16M'], { env });
  const bad = readFileSync(at('bad'));
  // One copy of the superblock; the others are whole.
  bad.fill(0, 0, 4096);
  writeFileSync(at('bad'), bad);
  writeFileSync(at('conf.yaml'), configuration('info'));
  const daemon = new Running(PROGRAM, ['serve', at('conf.yaml')], { env });
  t.teardown(() => daemon.end());
  const [, portal = ''] = await daemon.waitFor(/^cldd ready: \S+ on (\S+),1/m, WAIT_MS);
  const url = `iscsi://${portal}/${TARGET}/0`;
  const backups = at('backups');
  createFolder(backups);
  for (let n = 0; n < 2; n++) t.equal((await ask('backup', '--to', backups)).code, EXIT.DONE);
  const host = new Running('qemu-io', ['-f', 'raw', '-c', 'read 0 512', '-c', 'sleep 600000', url]);
  t.teardown(() => host.end('SIGKILL'));
  let session = 0;
  await until('a session', async () => {
    const [first] = JSON.parse((await ask('sessions', '--json')).stdout) as { id: number }[];
    session = first?.id ?? 0;
    return session > 0;
  });
  // For grow and reload there is something to do.
  truncateSync(at('p'), 32 << 20);
  writeFileSync(at('conf.yaml'), configuration('warn'));

  const dryRuns: Example[] = [
    { name: 'cldd init', args: ['init', at('other'), '--yes'] },
    { name: 'cldd init', args: ['init', at('made'), '--size', '16M'] },
    { name: 'cldd slave enable', args: ['slave', 'enable'] },
    { name: 'cldd slave disable', args: ['slave', 'disable'], code: EXIT.REFUSED },
    { name: 'cldd session kill', args: ['session', 'kill', String(session)] },
    { name: 'cldd session kill', args: ['session', 'kill', '65535'], code: EXIT.FAILURE },
    { name: 'cldd reload', args: ['reload'] },
    { name: 'cldd log-level', args: ['log-level', 'debug'] },
    { name: 'cldd rollback', args: ['rollback'], code: EXIT.REFUSED },
    { name: 'cldd grow', args: ['grow'] },
    { name: 'cldd backup', args: ['backup', '--to', backups, '--pre', `touch ${at('touched')}`] },
    { name: 'cldd restore', args: ['restore', backups, '--to', at('other')] },
    { name: 'cldd prune', args: ['prune', backups, '--keep', '1'] },
    { name: 'cldd check', args: ['check', at('bad'), '--repair'], code: 7 },
    { name: 'cldd secret', args: ['secret', at('secret')] },
    { name: 'cldd secret', args: ['secret', at('other')], code: EXIT.REFUSED },
  ];
  const enabledDryRuns: Example[] = [
    { name: 'cldd slave enable', args: ['slave', 'enable'], code: EXIT.REFUSED },
    { name: 'cldd slave disable', args: ['slave', 'disable'] },
    { name: 'cldd rollback', args: ['rollback', '--force'] },
  ];
  const reads: Example[] = [
    ['status'],
    ['metrics'],
    ['targets'],
    ['sessions'],
    ['changes'],
    ['verify', backups],
    ['dump', at('other')],
    ['config', 'check', at('conf.yaml')],
    ['completion', 'bash'],
  ].map((args) => ({ name: `cldd ${args[0] === 'config' ? 'config check' : args[0]}`, args }));

  await t.test('the list below is whole', async (t) => {
    const listed = new Set([...dryRuns, ...reads].map(({ name }) => name));
    for (const { name } of commandsOf(await createProgram()))
      // It runs until it is ended, and its --quiet is tried last.
      if (name !== 'cldd serve') t.ok(listed.has(name), name);
  });

  /** The same with --dry-run changes nothing, and says as text or as JSON what it would do, or nothing. */
  const leavesAlone = async (
    t: Pick<typeof tap, 'equal' | 'match'>,
    examples: readonly Example[],
  ): Promise<void> => {
    const before = await world();
    for (const { args, code = EXIT.DONE } of examples) {
      const line = args.join(' ').replaceAll(folder, '');
      const told = await ask(...args, '--dry-run');
      t.equal(told.code, code, `${line}: ${told.stdout}${told.stderr}`);
      if (code !== EXIT.DONE) continue;
      t.match(told.stdout, /would|^changed|^taken over/m, line);
      const quiet = await ask(...args, '--dry-run', '--quiet');
      t.equal(quiet.stdout + quiet.stderr, '', `${line} --quiet`);
      t.match(parse((await ask(...args, '--dry-run', '--json')).stdout), {}, `${line} --json`);
    }
    t.equal(await world(), before);
  };

  await t.test('--dry-run changes nothing', async (t) => {
    await leavesAlone(t, dryRuns);
    t.match((await ask('grow', '--dry-run')).stdout, /would have [\d.]+ MiB, [\d.]+ MiB more/);
    t.match((await ask('log-level', 'debug', '--dry-run')).stdout, /^info, would be debug$/m);
    t.match((await ask('reload', '--dry-run')).stdout, /taken over: .*logLevel/);
  });

  await t.test('what destroys something wants --yes', async (t) => {
    const before = await world();
    for (const args of [
      ['init', at('other')],
      ['restore', backups, '--to', at('other')],
      ['prune', backups, '--keep', '1'],
      ['rollback'],
    ]) {
      const refused = await ask(...args);
      t.equal(refused.code, EXIT.REFUSED, args[0]);
      t.match(refused.stderr, /--yes/);
      t.equal(refused.stdout, '');
    }
    t.equal(await world(), before);
  });

  await t.test('commands that read print nothing with --quiet, and JSON with --json', async (t) => {
    for (const { name, args } of reads) {
      const quiet = await ask(...args, '--quiet');
      t.same([quiet.code, quiet.stdout, quiet.stderr], [EXIT.DONE, '', ''], name);
      t.not((await ask(...args)).stdout, '', name);
      if (name !== 'cldd completion')
        t.ok(JSON.parse((await ask(...args, '--json')).stdout), `${name} --json`);
    }
  });

  await t.test('with the slave enabled', async (t) => {
    t.same(await ask('slave', 'enable', '--quiet').then(({ code, stdout }) => [code, stdout]), [
      EXIT.DONE,
      '',
    ]);
    await succeed('qemu-io', ['-f', 'raw', '-c', 'write -P 3 0 64k', url]);
    await leavesAlone(t, enabledDryRuns);
    const plan = await ask('rollback', '--force', '--dry-run', '--json');
    t.match(parse(plan.stdout), { generation: 3, divergedBytes: 65_536, dryRun: true });
  });

  await t.test('and without --dry-run they do it, and say nothing with --quiet', async (t) => {
    for (const args of [
      ['rollback', '--force', '--yes'],
      ['slave', 'disable'],
      ['grow'],
      ['log-level', 'debug'],
      ['reload'],
      ['session', 'kill', String(session)],
      ['prune', backups, '--keep', '1', '--yes'],
      ['restore', backups, '--to', at('other'), '--yes'],
      ['init', at('made'), '--size', '16M'],
    ]) {
      const done = await ask(...args, '--quiet');
      t.same([done.code, done.stdout, done.stderr], [EXIT.DONE, '', ''], args.join(' '));
    }
    const repaired = await ask('check', at('bad'), '--repair', '--quiet');
    t.equal(repaired.code, 6, 'it was damaged');
    const status = JSON.stringify(parse((await ask('status', '--json')).stdout));
    t.match(status, /"logLevel":"warn"/, 'as the configuration says');
    t.match(status, /"enabled":false/);
    t.notMatch(status, new RegExp(`"id":${session},`));
  });

  const silent = new Running(PROGRAM, ['serve', '--partition', at('made'), '--portal', '127.0.0.1:0', '--socket', at('t'), '--quiet', '--log-level', 'error'], { env }); // prettier-ignore
  t.teardown(() => silent.end());
  await until(
    'the second daemon',
    async () => (await cldd('status', '--socket', at('t'))).code === EXIT.DONE,
  );
  t.same(await silent.end(), { code: EXIT.DONE, signal: undefined });
  t.equal(silent.stdout + silent.stderr, '', 'serve --quiet');
});
