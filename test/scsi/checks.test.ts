/** What a command passes before it is carried out, and in which order: the checks of execute.ts. */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { MediumDone } from '../../src/scsi/medium.js';
import { COMMANDS } from './commands.js';
import { bench, cdb10, fieldOf, MemoryMedium, MemoryState } from './support.js';
import type { Bench, Outcome } from './support.js';

const [A, B] = ['a', 'b'].map((name) => `iqn.2024-01.org.example:${name}`);
const CONFLICT = 0x18;
const TUR = [0, 0, 0, 0, 0, 0];
const INQUIRY = [0x12, 0, 0, 0, 96, 0];
const write = cdb10(0x2a, 0, 1);

/** Code and field in error, if that is in the CDB. */
const refusal = (outcome: Outcome): unknown[] => [
  outcome.code,
  ((outcome.sense?.[15] ?? 0) & 0x40) === 0 ? undefined : fieldOf(outcome),
];

/** The CDB of a command with nothing set but what makes it that command. */
function plain({ usageData, serviceAction }: (typeof COMMANDS)[number]): Buffer {
  const cdb = Buffer.alloc(Math.max(16, usageData.length));
  cdb[0] = usageData[0];
  if (cdb[0] === 0x7f) usageData.copy(cdb, 7, 7, 10);
  else if (serviceAction !== undefined) cdb[1] = serviceAction;
  return cdb;
}

/** Names of the commands that end so. */
async function ending(b: Bench, code: string, lun = 0, name = A): Promise<string[]> {
  const nexus = b.login(name);
  const names: string[] = [];
  for (const command of COMMANDS) {
    const outcome = await b.run(nexus, lun, plain(command));
    if (outcome.ends !== 1) names.push(`${command.name} ended ${String(outcome.ends)} times`);
    if (outcome.code === code) names.push(command.name);
  }
  return names;
}

const named = (pattern: RegExp): string[] =>
  COMMANDS.map(({ name }) => name).filter((name) => pattern.test(name));

void t.test(
  'An operation code or service action that there is not is named where it stands (SPC-6 §4.2.5)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    t.same(refusal(await b.run(nexus, 0, [0xc7, 0, 0, 0, 0, 0])), ['05/20/00', 0]);
    t.same(refusal(await b.run(nexus, 0, [0x5e, 0x1f, 0, 0, 0, 0, 0, 0, 8, 0])), ['05/24/00', 1]);
    const long = Buffer.alloc(32);
    long.set([0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0xff, 0xff]);
    t.same(refusal(await b.run(nexus, 0, long)), ['05/24/00', 8]);
  },
);

void t.test(
  'A port in standby carries out what needs no medium, and all that SPC-6 §5.18.2.4 lists',
  async (t) => {
    const states = ['standby', 'unavailable'] as const;
    for (const [state, code] of [
      [states[0], '02/04/0b'],
      [states[1], '02/04/0c'],
    ] as const) {
      const b = bench({ accessStates: new Map([[1, state]]) });
      t.same(
        await ending(b, code),
        COMMANDS.map(({ name }) => name).filter(
          (name) =>
            !/^(INQUIRY|LOG|MODE|REPORT|SEND DIAGNOSTIC|SET TARGET|REQUEST SENSE|PERSISTENT|RESERVE|RELEASE|RECEIVE ROD)/.test(
              name,
            ),
        ),
        state,
      );
    }
    for (const state of ['optimized', 'non-optimized'] as const)
      t.same(await ending(bench({ accessStates: new Map([[1, state]]) }), '02/04/0b'), []);
  },
);

void t.test('Without a medium what needs one is refused, before protection (SBC-5 §4.4)', async (t) => {
  const b = bench();
  b.slave.present = false;
  t.same(
    await ending(b, '02/3a/00', 1),
    COMMANDS.filter(({ needsMedium }) => needsMedium).map(({ name }) => name),
  );
  t.same(
    COMMANDS.filter(({ needsMedium }) => !needsMedium).map(({ name }) => name),
    named(
      /^(INQUIRY|LOG|MODE|REPORT|SEND DIAG|SET TARGET|REQUEST SENSE|PERSISTENT|RESERVE|RELEASE|RECEIVE|EXTENDED|START STOP|PREVENT)/,
    ),
  );
});

void t.test(
  'On a protected unit what writes is refused, and says who protects it (SBC-5 §4.12)',
  async (t) => {
    const writes = COMMANDS.filter(({ changesMedium }) => changesMedium).map(({ name }) => name);
    t.same(await ending(bench(), '07/27/00', 1), writes);
    t.same(writes, named(/^(WRITE|UNMAP|COMPARE|ORWRITE|SANITIZE)/));
    const b = bench();
    const a = b.login(A);
    const swp = Buffer.from('00000000' + '0a0a0210080000' + '00ffff0000', 'hex');
    t.equal((await b.run(a, 0, [0x15, 0x10, 0, 0, swp.length, 0], swp)).status, 0, 'SWP');
    t.equal((await b.run(a, 0, write, Buffer.alloc(512))).code, '07/27/02');
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).status, 0);
  },
);

void t.test(
  'A unit attention comes before a reservation conflict, and that before the rest (SAM-6 §5.14)',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    t.equal((await b.run(a, 0, [0x16, 0, 0, 0, 0, 0])).status, 0, 'RESERVE (6)');
    b.target.capacityChanged();
    t.equal((await b.run(other, 0, INQUIRY)).status, 0, 'it leaves the attention pending');
    t.equal((await b.run(other, 0, [0xc7, 0, 0, 0, 0, 0])).code, '06/2a/09', 'an unknown command reports it');
    t.equal((await b.run(other, 0, [0xc7, 0, 0, 0, 0, 0])).code, '05/20/00', 'and is known to nobody');
    const bad = cdb10(0x28, 0xffff_ff, 1, 0xe0);
    t.equal((await b.run(other, 0, bad)).status, CONFLICT);
    t.equal((await b.run(a, 0, TUR)).code, '06/2a/09');
    t.same(refusal(await b.run(a, 0, bad)), ['05/24/00', 1], 'a bit that is not known before the range');
  },
);

/** Holds its first flush back. */
class Holding extends MemoryMedium {
  go: (() => void) | undefined;

  override flush(done: MediumDone): void {
    if (this.go !== undefined) super.flush(done);
    else this.go = () => done(MEDIUM.OK);
  }
}

void t.test(
  'While an atomic write is done again, the medium is becoming ready, the rest is (SBC-5 §5.48)',
  async (t) => {
    const state = new MemoryState();
    const first = bench({ state });
    first.master.fail = MEDIUM.FAILED;
    const atomic = Buffer.alloc(16);
    atomic[0] = 0x9c;
    atomic[13] = 16;
    await first.run(first.login(A), 0, atomic, Buffer.alloc(8192, 7));
    t.ok(state.records.has('scsi.atomic'));
    const master = new Holding(1 << 20);
    const b = bench({ state, master });
    while (master.go === undefined) await new Promise(setImmediate);
    t.same(
      await ending(b, '02/04/01'),
      COMMANDS.filter(({ needsMedium }) => needsMedium).map(({ name }) => name),
    );
    const a = b.login(B);
    t.equal((await b.run(a, 1, TUR)).code, '', 'the slave is ready');
    master.go?.();
    while (state.records.has('scsi.atomic')) await new Promise(setImmediate);
    await new Promise(setImmediate);
    t.equal((await b.run(a, 0, TUR)).code, '');
    t.notOk(a.paths[0]?.special, 'nothing is to be looked at any more');
    t.equal(master.bytes[0], 7);
  },
);

void t.test(
  'While SANITIZE runs, and after one that failed, nothing gets at the medium (SBC-5 §4.11)',
  async (t) => {
    const b = bench();
    const a = b.login(B);
    const medium = COMMANDS.filter(({ needsMedium, name }) => needsMedium || name === 'START STOP UNIT');
    const BLOCK_ERASE = [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0];
    b.master.held = true;
    const erase = b.start(a, 0, BLOCK_ERASE);
    while (!a.paths[0]?.special) await new Promise(setImmediate);
    t.same(
      await ending(b, '02/04/1b'),
      medium.map(({ name }) => name),
    );
    const { sense } = await b.run(a, 0, TUR);
    t.equal((sense?.[15] ?? 0) & 0x80, 0x80, 'SKSV: with its progress');
    b.master.fail = MEDIUM.FAILED;
    b.master.release();
    t.equal((await erase.whenEnded()).code, '03/31/03');
    t.same(
      await ending(b, '03/31/03'),
      medium.map(({ name }) => name).filter((name) => !/^SANITIZE, (OVER|EXIT)/.test(name)),
      'but another SANITIZE, of which one was tried and failed again',
    );
  },
);
