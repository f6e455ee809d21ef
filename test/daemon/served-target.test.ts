/** One target as the daemon serves it: what initiators may do to the slave, and what they may ask of a real partition. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { TargetConfiguration } from '../../src/config/configuration.js';
import { parseConfiguration } from '../../src/config/load.js';
import { Partition } from '../../src/cow/partition.js';
import { ServedTarget } from '../../src/daemon/served-target.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { cdb10, senseCode, TestTask } from '../scsi/support.js';
import type { Outcome } from '../scsi/support.js';

const OPERATOR = 'iqn.2026-01.com.example:operator';
const BACKUP = 'iqn.2026-01.com.example:backup';

interface Served {
  target: ServedTarget;
  warnings: string[];
  configure: (keys: string) => TargetConfiguration;
  login: (name: string) => Nexus;
  run: (nexus: Nexus, lun: number, cdb: readonly number[] | Buffer, dataOut?: Buffer) => Promise<Outcome>;
}

async function serve(t: { teardown: (end: () => Promise<void>) => void }, keys: string): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-served-'));
  const path = join(folder, 'partition');
  await Partition.init(path, { sizeBytes: 64 << 20 });
  const configure = (more: string): TargetConfiguration => {
    const text = `targets:\n  - name: iqn.2026-01.com.example:disk\n    partition: ${path}\n${more}`;
    return parseConfiguration(text, join(folder, 'cldd.yaml')).targets[0];
  };
  const warnings: string[] = [];
  const warn = (_fields: object, message: string): void => void warnings.push(message);
  const log = { debug: () => undefined, info: () => undefined, warn, error: warn };
  const target = await ServedTarget.open(configure(keys), [1], (file) => Partition.open(file), log);
  t.teardown(async () => {
    await target.close();
    rmSync(folder, { recursive: true });
  });
  const run: Served['run'] = (nexus, lun, cdb, dataOut = Buffer.alloc(0)) => {
    const task = new TestTask(nexus, cdb);
    task.lunHigh = lun << 16;
    task.dataOut = dataOut;
    task.expectedDataOut = dataOut.length;
    task.expectedDataIn = dataOut.length > 0 ? 0 : 1 << 20;
    target.scsi.submit(task);
    return task.whenEnded();
  };
  const login = (initiatorName: string): Nexus =>
    target.scsi.attach({
      initiatorName,
      initiatorPort: `${initiatorName},i,0x00023d000001`,
      portalGroupTag: 1,
      luns:
        target
          .iscsiOptions()
          .access({ initiatorName, address: '127.0.0.1', portalGroupTag: 1, user: undefined }) ?? [],
      address: '127.0.0.1',
    });
  return { target, warnings, configure, login, run };
}

const eject = [0x1b, 0, 0, 0, 0x02, 0];
const load = [0x1b, 0, 0, 0, 0x03, 0];

/** What START STOP UNIT comes to, whatever unit attentions stand before it. */
async function startStop({ run }: Served, nexus: Nexus, cdb: number[]): Promise<string> {
  for (;;) {
    const { code } = await run(nexus, 1, cdb);
    if (!code.startsWith('06/')) return code;
  }
}

void t.test('Who may load and eject: nobody loads by default, and a rule may say otherwise', async (t) => {
  const rules = '    access:\n';
  const everybody = "      - initiator: '*'\n";
  const served = await serve(t, rules + everybody);
  const { target } = served;
  const backup = served.login(BACKUP);
  t.equal(await startStop(served, backup, load), '05/53/00', 'allowLoad: false');
  t.match(served.warnings.at(-1), /not allow this initiator to enable the slave \(allowLoad\)/);
  await target.enable({ crashConsistent: true });
  t.equal(await startStop(served, backup, eject), '', 'allowEject: true');
  t.equal(target.partition.status().slave.enabled, false);

  target.reconfigure(served.configure(`${rules}${everybody}    allowLoad: true\n    allowEject: false\n`));
  t.equal(await startStop(served, backup, load), '', 'a reload allows it');
  t.equal(await startStop(served, backup, eject), '05/53/00');
  await target.disable({});

  const operator = `      - { initiator: '${OPERATOR}', allowLoad: true, allowEject: false }\n`;
  target.reconfigure(served.configure(`${rules}${operator}${everybody}`));
  const [one, other] = [served.login(OPERATOR), served.login(BACKUP)];
  t.equal(await startStop(served, other, load), '05/53/00', 'not everybody');
  t.equal(await startStop(served, one, load), '', 'the operator');
  t.equal(await startStop(served, one, eject), '05/53/00', 'who may not end it');
  t.equal(await startStop(served, other, eject), '');
});

/** GET LBA STATUS (32) about a generation: LBA, blocks and provisioning status of each run. */
async function changedSince(
  { run }: Served,
  nexus: Nexus,
  since: number,
  lba = 0,
): Promise<number[][] | string> {
  const cdb = Buffer.alloc(32);
  cdb[0] = 0x7f;
  cdb[7] = 0x18;
  cdb[9] = 0x12;
  cdb.writeUInt32BE(lba, 16);
  cdb.writeUInt32BE(since, 24);
  cdb.writeUInt32BE(65_536, 28);
  const { data, sense } = await run(nexus, 1, cdb);
  if (sense !== undefined) return senseCode(sense);
  const runs: number[][] = [];
  for (let at = 8; at < data.length; at += 16)
    runs.push([Number(data.readBigUInt64BE(at)), data.readUInt32BE(at + 8), data[at + 12]]);
  return runs;
}

void t.test('GET LBA STATUS tells what a real partition says has changed since a generation', async (t) => {
  const keys = "    access: [{ initiator: '*' }]\n";
  const served = await serve(t, keys);
  const { target, run } = served;
  const nexus = served.login(BACKUP);
  for (const lun of [0, 1]) await run(nexus, lun, [0x03, 0, 0, 0, 252, 0]);
  const write = async (lba: number, blocks: number): Promise<void> => {
    const { code } = await run(nexus, 0, cdb10(0x2a, lba, blocks), Buffer.alloc(blocks * 512, lba));
    t.equal(code, '');
  };
  const enable = async (): Promise<number> => {
    const { generation } = await target.enable({ crashConsistent: true });
    await run(nexus, 1, [0x03, 0, 0, 0, 252, 0]);
    return generation;
  };
  await write(0, 8);
  await write(1024, 8);
  const first = await enable();
  t.equal(await changedSince(served, nexus, first), '05/24/00', 'reportChanges: false');
  target.reconfigure(served.configure(`${keys}    reportChanges: true\n`));
  await target.disable({});
  await write(2056, 8);
  const second = await enable();
  t.same(
    await changedSince(served, nexus, first),
    [
      [2048, 8, 1],
      [2056, 8, 0],
      [2064, 112, 1],
    ],
    'the 64 KiB with the write, holes as holes',
  );
  t.same(
    await changedSince(served, nexus, first, 2060),
    [
      [2060, 4, 0],
      [2064, 112, 1],
    ],
    'from an LBA within them on',
  );
  t.same(await changedSince(served, nexus, second), []);
  t.equal(await changedSince(served, nexus, second + 1), '05/24/00');
  await write(0, 8);
  const since = await changedSince(served, nexus, second);
  t.same(since[0], [0, 8, 0], 'never less than has changed, also of the master since');
});
