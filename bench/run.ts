/** `npm run bench`: see `--help`, and docs/performance.md for the method. */
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from '../conformance/support/paths.js';
import { compileLoad } from './load.js';
import { type Entrant, diverge, fillAndCheck, measure } from './measure.js';
import { BEHAVIOUR, SHORT_BEHAVIOUR, behaviour } from './behaviour.js';
import { type Peer, startCldd, startIstgt, startPrototype, startTgtdPeer } from './peers.js';
import { BEFORE, type Results, toComparison, toMarkdown, toSvg } from './report.js';
import { SCALING, SHORT_SCALING, scaling } from './scaling.js';
import { WORKLOADS } from './workloads.js';

const HELP = `npm run bench -- [options]: compares cldd with other iSCSI targets on this machine

  --rows ID,…        only these rows (${WORKLOADS.map(({ id }) => id).join(', ')})
  --peers NAME,…     of tgtd, tuned, istgt (all unless told); none: cldd alone
  --prototype FILE   a Node script that serves env FILE on env PORT joins them
  --before FOLDER    compares with the cldd of another checkout alone, which has been built there
  --rounds N         5
  --seconds N        of each run; 1.5
  --size MIB         of each LUN that are used; 1024
  --folder DIR       where the stores are made (and removed); the system's folder for temporary files
  --short            one round of 0.3 s on 64 MiB: shows that it works, not how fast it is
  --scaling          instead of the comparison: what more sessions, a larger partition and divergence cost
  --behaviour        instead: writers beside a backup, overload, stops of the event loop, the heap, the cost at rest
  --save             keeps the results as bench/results.{json,md,svg} and scaling.svg, and in docs/performance.md
`;

/** Between these lines of docs/performance.md stand the tables. */
const MARKS = { begin: '<!-- bench: begin -->\n', end: '<!-- bench: end -->\n' };
const SCALING_MARKS = { begin: '<!-- scaling: begin -->\n', end: '<!-- scaling: end -->\n' };

const BEHAVIOUR_MARKS = { begin: '<!-- behaviour: begin -->\n', end: '<!-- behaviour: end -->\n' };

const { values } = parseArgs({
  options: {
    rows: { type: 'string' },
    peers: { type: 'string' },
    prototype: { type: 'string' },
    before: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    size: { type: 'string' },
    folder: { type: 'string', default: tmpdir() },
    short: { type: 'boolean', default: false },
    scaling: { type: 'boolean', default: false },
    behaviour: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) process.stdout.write(HELP);
else if (values.scaling) await alone(SCALING_MARKS, scale);
else if (values.behaviour)
  await alone(BEHAVIOUR_MARKS, (folder) => behaviour(folder, values.short ? SHORT_BEHAVIOUR : BEHAVIOUR));
else await bench();

async function scale(folder: string): Promise<string> {
  const { text, picture } = await scaling(folder, values.short ? SHORT_SCALING : SCALING);
  if (values.save) writeFileSync(join(ROOT, 'bench/scaling.svg'), picture);
  return text;
}

/** Measures cldd alone, prints what came out, and keeps it between its marks if that is wanted. */
async function alone(marks: typeof MARKS, measured: (folder: string) => Promise<string>): Promise<void> {
  await compileLoad();
  const folder = mkdtempSync(join(resolve(values.folder), 'cldd-bench-'));
  try {
    const found = await measured(folder);
    const text = `${machine()}; Node ${process.versions.node}; ${moment()}.\n\n${found}\n`;
    process.stdout.write(text);
    if (values.save) putInto(marks, text);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function machine(): string {
  return `${cpus().length} × ${cpus()[0].model}, Linux ${release()}`;
}

function moment(): string {
  return new Date().toISOString().slice(0, 16).replace('T', ' ') + ' UTC';
}

async function bench(): Promise<void> {
  const settings = {
    rounds: Number(values.rounds ?? (values.short ? 1 : 5)),
    seconds: Number(values.seconds ?? (values.short ? 0.3 : 1.5)),
    region: Number(values.size ?? (values.short ? 64 : 1024)) * 2 ** 20,
  };
  const wanted = values.rows?.split(',');
  const workloads = WORKLOADS.filter(({ id }) => wanted?.includes(id) ?? true);
  await compileLoad();
  const folder = mkdtempSync(join(resolve(values.folder), 'cldd-bench-'));
  const entrants: Entrant[] = [];
  try {
    const digests = workloads.some(({ load }) => load.dataDigest === true);
    await enter(entrants, folder, settings.region, digests);
    const results: Results = {
      at: moment(),
      machine: machine(),
      node: process.versions.node,
      settings,
      peers: Object.fromEntries(entrants.map(({ column, peer }) => [column, peer.version])),
      rows: [],
    };
    for (const workload of workloads) {
      process.stderr.write(`${workload.title} …\n`);
      results.rows.push({ workload, measured: await measure(workload, entrants, settings) });
    }
    process.stdout.write(values.before === undefined ? toMarkdown(results) : toComparison(results));
    if (values.save && values.before === undefined) save(results);
  } finally {
    for (const { peer } of entrants) await peer.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts every target, fills its store and reads it back; with digests, too, if a row has them. */
async function enter(entrants: Entrant[], folder: string, region: number, digests: boolean): Promise<void> {
  const { before } = values;
  const peers = values.peers?.split(',') ?? (before === undefined ? ['tgtd', 'tuned', 'istgt'] : []);
  const starts: [column: string, start: () => Promise<Peer>][] = [['cldd', () => startCldd(folder, region)]];
  if (before === undefined)
    starts.push(['cldd, slave enabled', () => startCldd(folder, region, 'cldd-slave')]);
  else starts.push([BEFORE, () => startCldd(folder, region, 'cldd-before', { checkout: resolve(before) })]);
  if (peers.includes('tgtd')) starts.push(['tgtd', () => startTgtdPeer(folder, region)]);
  if (peers.includes('tuned')) starts.push(['tgtd tuned', () => startTgtdPeer(folder, region, true)]);
  if (peers.includes('istgt')) starts.push(['istgt', () => startIstgt(folder, region)]);
  const { prototype } = values;
  if (prototype !== undefined)
    starts.push(['prototype', () => startPrototype(resolve(prototype), folder, region)]);
  mkdirSync(folder, { recursive: true });
  for (const [column, start] of starts) {
    process.stderr.write(`${column}: start, fill, check …\n`);
    const peer = await start();
    const slaveEnabled = column.endsWith('enabled');
    entrants.push({ column, peer, slaveEnabled });
    await fillAndCheck(peer, region, digests && column !== 'prototype');
    if (!slaveEnabled || peer.slave === undefined) continue;
    // Reads meet a master of which half has parted from the slave, block by block.
    await peer.slave.enable();
    await diverge(peer, region, 0.5);
  }
}

function save(results: Results): void {
  const table = toMarkdown(results);
  const folder = join(ROOT, 'bench');
  writeFileSync(join(folder, 'results.json'), `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(join(folder, 'results.md'), `# What \`npm run bench -- --save\` printed\n\n${table}`);
  writeFileSync(join(folder, 'results.svg'), toSvg(results));
  putInto(MARKS, table);
}

function putInto({ begin, end }: typeof MARKS, table: string): void {
  const document = join(ROOT, 'docs/performance.md');
  const [before, rest] = readFileSync(document, 'utf8').split(begin);
  writeFileSync(document, `${before}${begin}${table}${end}${rest.split(end)[1]}`);
}
