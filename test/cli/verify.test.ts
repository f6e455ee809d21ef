/** Many backups, some of which are not sound: each is looked at and told of, and hinders nothing that it is no part of. */
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { succeed } from '../../conformance/support/processes.js';
import { BACKUP_VERSION, FrameWriter } from '../../src/cli/backup/format.js';
import { cldd, finishedIn, scratch } from './support.js';

tap.setTimeout(240_000);
const folder = scratch('verify');
const CAPACITY_BYTES = 8192;
/** Generations, each with the one that it builds on. */
const CHAINS: readonly [number, number?][] = [[1], [2, 1], [3, 2], [4], [5, 4], [6, 5]];
let places = 0;

/** A full backup, or one on top of the generation `base`; each fills a sector of its own with its number. */
function writeBackup(path: string, generation: number, base?: number): void {
  const writer = new FrameWriter();
  const header = {
    ...{ version: BACKUP_VERSION, id: `a${generation}`, target: 'iqn.2026-01.org.example:x', uuid: 'b' },
    ...{ kind: base === undefined ? 'full' : 'incremental', generation, capacityBytes: CAPACITY_BYTES },
    ...{ createdAt: '2026-01-01T00:00:00.000Z' },
    base: base === undefined ? null : { id: `a${base}`, generation: base },
  };
  const frames = [writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify(header)))];
  const at = 512 * generation;
  if (base === undefined) frames.push(writer.frame('ZERO', 0, at));
  frames.push(writer.frame('DATA', at, 512, Buffer.alloc(512, generation)));
  if (base === undefined) frames.push(writer.frame('ZERO', at + 512, CAPACITY_BYTES - at - 512));
  writeFileSync(path, Buffer.concat([...frames, writer.done()]));
}

/** Generations 1 to 6: two chains of three. */
function chains(): { place: string; of: (generation: number) => string } {
  const place = join(folder, `place-${places++}`);
  mkdirSync(place);
  const of = (generation: number): string => join(place, `g${generation}.cldd`);
  for (const [generation, base] of CHAINS) writeBackup(of(generation), generation, base);
  return { place, of };
}

function spoil(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(path, bytes);
}

interface Row {
  file: string;
  sound: boolean;
  fault: string | null;
  generation: number | null;
}

void tap.test('verify looks at every one, lists what is wrong, and fails', async (t) => {
  const { place, of } = chains();
  const sound = await cldd('verify', place);
  t.equal(sound.code, EXIT.DONE, sound.stderr);
  t.equal(sound.stdout.match(/: sound$/gm)?.length, 6);

  spoil(of(1));
  truncateSync(of(5), statSync(of(5)).size - 1);
  await succeed('mkfifo', [join(place, 'pipe.cldd')]);
  writeFileSync(join(place, 'evil\nname \u001b[31m.cldd'), 'no backup');
  const told = await cldd('verify', place, join(folder, 'absent.cldd'));
  t.equal(told.code, EXIT.FAILURE);
  const lines = told.stderr.trimEnd().split('\n');
  t.equal(lines.length, 9, told.stderr);
  for (const pattern of [
    /g1\.cldd is no sound backup: frame \d+ has a wrong checksum/,
    /g2\.cldd builds on \S+g1\.cldd, which is not sound/,
    /g3\.cldd builds on \S+g1\.cldd, which is not sound/,
    /g5\.cldd is no sound backup: it is cut off/,
    /g6\.cldd builds on \S+g5\.cldd, which is not sound/,
    /pipe\.cldd is no sound backup: it is not a regular file/,
    /evil\\x0aname \\x1b\[31m\.cldd is no sound backup/,
    /absent\.cldd does not exist/,
    /^cldd: 8 of 9 backups are not sound$/,
  ])
    t.equal(lines.filter((line) => pattern.test(line)).length, 1, String(pattern));
  t.equal(told.stdout.match(/: sound$/gm)?.length, 1);
  t.equal(told.stdout.match(/: NOT SOUND$/gm)?.length, 8);

  const quiet = await cldd('verify', place, '--quiet');
  t.same([quiet.code, quiet.stdout, quiet.stderr.split('\n').length], [EXIT.FAILURE, '', 9]);
  const rows = JSON.parse((await cldd('verify', place, '--json')).stdout) as Row[];
  t.same(
    rows.filter((row) => row.sound).map((row) => row.generation),
    [4],
  );
  t.ok(rows.every(({ sound, fault }) => sound === (fault === null)));
});

void tap.test('what is not sound hinders no restore of others, and is told', async (t) => {
  const { place, of } = chains();
  spoil(of(2));
  writeFileSync(join(place, 'other.cldd'), 'no backup');
  const to = join(folder, 'image');
  const done = await cldd('restore', place, '--to', to);
  t.equal(done.code, EXIT.WARNINGS, done.stderr);
  t.match(done.stderr, /other\.cldd is no sound backup/);
  const image = readFileSync(to);
  for (const generation of [4, 5, 6]) t.equal(image[512 * generation], generation);
  t.equal((await cldd('restore', place, '--generation', '3', '--to', join(folder, 'no'))).code, EXIT.FAILURE);
  for (const other of ['-', folder, '/dev/null']) {
    const refused = await cldd('restore', place, '--to', other, '--yes');
    t.ok([EXIT.FAILURE, EXIT.USAGE].includes(refused.code as 1 | 2), `${other}: ${refused.stderr}`);
    t.match(refused.stderr, /not stdout|neither a file nor a block device/);
  }
});

void tap.test(
  'prune leaves alone what it can not read or place, says so, and removes the rest',
  async (t) => {
    const { place, of } = chains();
    writeFileSync(join(place, 'other.cldd'), 'no backup');
    copyFileSync(of(4), join(folder, 'kept'));
    rmSync(of(4));
    const pruned = await cldd('prune', place, '--keep', '1', '--yes');
    t.equal(pruned.code, EXIT.WARNINGS, pruned.stderr);
    t.match(pruned.stderr, /other\.cldd is no sound backup/);
    t.match(
      pruned.stderr,
      /g5\.cldd builds on the backup of generation 4, which is not among the files given; it stays/,
    );
    t.same(
      finishedIn(place),
      ['g1.cldd', 'g2.cldd', 'g3.cldd', 'g5.cldd', 'g6.cldd', 'other.cldd'],
      'the only whole chain, and what nobody knows',
    );
    copyFileSync(join(folder, 'kept'), of(4));
    t.equal((await cldd('prune', place, '--keep', '1', '--yes')).code, EXIT.WARNINGS);
    t.same(finishedIn(place), ['g4.cldd', 'g5.cldd', 'g6.cldd', 'other.cldd']);
  },
);
