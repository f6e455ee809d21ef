/** SANITIZE that fails: the failure mode, what leads out of it, and what a restart makes of it (SBC-5 §4.11, §5.31). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import { TASK_MANAGEMENT } from '../../src/scsi/port.js';
import { cdb10, fieldOf, MemoryMedium, MemoryState } from './support.js';
import {
  AUSE,
  BLOCK_ERASE,
  EXIT_FAILURE_MODE,
  IMMED,
  INVALID_FIELD_IN_CDB,
  OVERWRITE,
  PATTERN,
  READ,
  RECORD,
  SANITIZE_COMMAND_FAILED,
  TEST_UNIT_READY,
  failed,
  restarted,
  sanitize,
  served,
} from './sanitizing.js';

void t.test(
  'a failed SANITIZE is told by its own status, and by REQUEST SENSE if it was IMMED',
  async (t) => {
    const { master, overwrite, run, sense } = served();
    master.fail = MEDIUM.FAILED;
    t.equal((await overwrite(0)).code, SANITIZE_COMMAND_FAILED);
    t.equal((await run(sanitize(IMMED | BLOCK_ERASE))).status, 0);
    while ((await run(TEST_UNIT_READY)).code === '02/04/1b') await new Promise(setImmediate);
    t.equal(await sense(), SANITIZE_COMMAND_FAILED);
  },
);

void t.test('in the failure mode every command for the medium is refused, and no other', async (t) => {
  const { run, sense, login } = await failed(0);
  const refused = {
    'TEST UNIT READY': TEST_UNIT_READY,
    'READ (10)': READ,
    'READ CAPACITY (10)': cdb10(0x25, 0, 0),
    'SYNCHRONIZE CACHE (10)': cdb10(0x35, 0, 0),
    'START STOP UNIT': [0x1b, 0, 0, 0, 1, 0],
  };
  for (const [name, cdb] of Object.entries(refused))
    t.equal((await run(cdb)).code, SANITIZE_COMMAND_FAILED, name);
  t.equal((await run(cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, SANITIZE_COMMAND_FAILED, 'WRITE (10)');
  for (const [name, cdb] of Object.entries({
    INQUIRY: [0x12, 0, 0, 0, 96, 0],
    'REPORT LUNS': [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    'MODE SENSE (6)': [0x1a, 0, 0x3f, 0, 252, 0],
    'PERSISTENT RESERVE IN': [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0],
  }))
    t.equal((await run(cdb)).status, 0, name);
  t.equal(await sense(), SANITIZE_COMMAND_FAILED);
  const other = login('iqn.2024-01.org.example:other');
  t.ok(other.attached, 'who comes later');
});

void t.test('the other unit shows its image in the meantime', async (t) => {
  const { start, nexus } = await failed(0);
  t.equal((await start(nexus, 1, READ).whenEnded()).status, 0);
});

void t.test(
  'restricted (AUSE=0): EXIT FAILURE MODE and AUSE=1 are refused, a success leads out',
  async (t) => {
    const { run, overwrite, master, state, warnings } = await failed(0);
    const exit = await run(sanitize(EXIT_FAILURE_MODE));
    t.strictSame([exit.code, fieldOf(exit)], [INVALID_FIELD_IN_CDB, 1]);
    const unrestricted = await overwrite(AUSE);
    t.strictSame([unrestricted.code, fieldOf(unrestricted)], [INVALID_FIELD_IN_CDB, 1]);
    t.equal((unrestricted.sense?.[15] ?? 0) & 0x0f, 0x08 | 5, 'BPV, and the bit of AUSE');
    t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
    t.equal((await overwrite(0)).status, 0);
    t.ok(master.bytes.equals(Buffer.alloc(master.capacityBytes, PATTERN)));
    t.equal((await run(READ)).status, 0);
    t.notOk(state.records.has(RECORD));
    t.strictSame(
      warnings.map(({ message }) => message),
      ['SANITIZE failed'],
    );
  },
);

void t.test(
  'unrestricted (AUSE=1): EXIT FAILURE MODE leads out, and is durable before its status',
  async (t) => {
    const made = await failed(AUSE);
    const { run, state, sense } = made;
    t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
    t.ok(state.records.has(RECORD));
    t.equal((await run(sanitize(EXIT_FAILURE_MODE))).status, 0);
    t.notOk(state.records.has(RECORD));
    t.equal((await run(READ)).status, 0);
    t.equal(await sense(), '00/00/00');
    t.equal((await restarted(made).run(READ)).status, 0);
  },
);

void t.test('EXIT FAILURE MODE without a failure is GOOD at once, and records nothing', (t) => {
  const { start, nexus, state } = served();
  state.fails = true;
  const task = start(nexus, 0, sanitize(EXIT_FAILURE_MODE));
  t.strictSame([task.status, task.ends], [0, 1]);
  t.end();
});

void t.test('EXIT FAILURE MODE that cannot be recorded leaves the unit in the failure mode', async (t) => {
  const { run, state, warnings } = await failed(AUSE);
  state.fails = true;
  t.equal((await run(sanitize(EXIT_FAILURE_MODE))).code, '04/44/00');
  t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
  t.match(warnings.at(-1), {
    fields: { err: Error, unit: 'master' },
    message: /EXIT FAILURE MODE could not be recorded/,
  });
  state.fails = false;
  t.equal((await run(sanitize(EXIT_FAILURE_MODE))).status, 0);
});

void t.test('the failure mode and its kind outlast a restart, and a LOGICAL UNIT RESET', async (t) => {
  for (const [flags, exit] of [
    [0, INVALID_FIELD_IN_CDB],
    [AUSE, ''],
  ] as const) {
    const before = await failed(flags);
    await new Promise<void>((resolve) => {
      const lun = { lunHigh: 0, lunLow: 0, task: undefined };
      const request = { nexus: before.nexus, ...lun, function: TASK_MANAGEMENT.LOGICAL_UNIT_RESET };
      before.target.manage(request, () => resolve());
    });
    t.equal(await before.sense(), '06/29/03');
    t.equal((await before.run(READ)).code, SANITIZE_COMMAND_FAILED);
    const { run, warnings } = restarted(before);
    t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
    t.match(warnings[0].message, /last SANITIZE failed/);
    t.equal((await run(sanitize(EXIT_FAILURE_MODE))).code, exit);
  }
});

/** Waits for the first write of an operation, which is held. */
async function begun(master: MemoryMedium): Promise<void> {
  while (master.waiting.length === 0) await new Promise(setImmediate);
}

void t.test(
  'an operation that a restart interrupts is done all the same, with its kind of completion',
  async (t) => {
    for (const flags of [0, AUSE]) {
      const before = served({ master: new MemoryMedium(8 * 1024 * 1024) });
      before.master.held = true;
      const task = before.start(before.nexus, 0, sanitize(flags | OVERWRITE, 5), before.list);
      await begun(before.master);
      t.notOk(task.ended);
      const state = new MemoryState();
      for (const [key, value] of before.state.records) state.records.set(key, value);

      const good = served({ state });
      while ((await good.run(READ)).code === '02/04/1b') await new Promise(setImmediate);
      t.ok(good.master.bytes.equals(Buffer.alloc(good.master.capacityBytes, PATTERN)));
      t.notOk(state.records.has(RECORD));

      for (const [key, value] of before.state.records) state.records.set(key, value);
      const master = new MemoryMedium(8 * 1024 * 1024);
      master.fail = MEDIUM.FAILED;
      const bad = served({ state, master });
      while ((await bad.run(READ)).code === '02/04/1b') await new Promise(setImmediate);
      t.equal((await bad.run(READ)).code, SANITIZE_COMMAND_FAILED);
      t.equal((await bad.run(sanitize(EXIT_FAILURE_MODE))).status, flags === 0 ? 2 : 0);
      before.master.release();
      await task.whenEnded();
    }
  },
);

void t.test('records of versions before, and those that nobody can read, never open the unit', async (t) => {
  const earlier = { pattern: Buffer.alloc(512, PATTERN).toString('hex'), count: 1, invert: false };
  const state = new MemoryState();
  state.records.set(RECORD, Buffer.from(JSON.stringify(earlier)));
  const resumed = served({ state });
  while ((await resumed.run(READ)).code === '02/04/1b') await new Promise(setImmediate);
  t.equal((await resumed.run(READ)).data[0], PATTERN);

  for (const wrong of [
    '{',
    'null',
    '7',
    '{}',
    '{"count":"1","invert":false}',
    '{"count":1}',
    '{"count":1,"invert":false,"pattern":"3c"}',
    '{"count":1,"invert":false,"pattern":7}',
    '{"failure":"none"}',
  ]) {
    state.records.set(RECORD, Buffer.from(wrong));
    const { run, warnings, overwrite } = served({ state });
    t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED, wrong);
    t.equal((await run(sanitize(EXIT_FAILURE_MODE))).code, INVALID_FIELD_IN_CDB);
    t.match(warnings[0].message, /cannot be read/);
    t.equal((await overwrite(0)).status, 0);
    t.equal((await run(READ)).status, 0);
  }
});

void t.test(
  'what cannot be recorded does not begin, and leaves the unit as it was, IMMED or not',
  async (t) => {
    for (const flags of [0, IMMED]) {
      const { run, overwrite, state, master } = served();
      master.bytes.fill(0x77);
      state.fails = true;
      t.equal((await overwrite(flags)).code, '04/44/00');
      t.equal((await run(READ)).data[0], 0x77);
    }
    const { run, overwrite, state } = await failed(0);
    state.fails = true;
    t.equal((await overwrite(0)).code, '04/44/00');
    t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED, 'nor does it lead out of the failure mode');
  },
);

void t.test('an end that cannot be recorded is told, since a restart would begin again', async (t) => {
  const { overwrite, state, warnings, run, master } = served();
  master.held = true;
  const task = overwrite(0);
  await begun(master);
  state.fails = true;
  master.release();
  t.equal((await task).status, 0);
  await new Promise(setImmediate);
  t.match(warnings[0], {
    fields: { err: Error, unit: 'master' },
    message: /would be repeated after a restart/,
  });
  t.equal((await run(READ)).status, 0);
});

void t.test('of two whose parameter lists come at once the second is refused', async (t) => {
  const { start, nexus, list, overwriteCdb } = served();
  const [first, second] = [1, 2].map(() =>
    start(nexus, 0, overwriteCdb, list, (task) => {
      task.withheld = true;
    }),
  );
  first.deliver();
  second.deliver();
  t.equal(second.outcome().code, '02/04/1b');
  t.equal((second.outcome().sense?.[15] ?? 0) & 0x80, 0x80, 'with its progress');
  t.equal((await first.whenEnded()).status, 0);
});

void t.test('an aborted SANITIZE goes on, and its task object may serve others', async (t) => {
  const { start, nexus, list, overwriteCdb, target, master, run } = served();
  master.held = true;
  const task = start(nexus, 0, overwriteCdb, list);
  const request = { nexus, lunHigh: 0, lunLow: 0, task, function: TASK_MANAGEMENT.ABORT_TASK };
  await new Promise<void>((resolve) => target.manage(request, () => resolve()));
  const { ends } = task;
  // MODE SELECT, which waits for its list.
  task.aborted = false;
  task.withheld = true;
  task.cdb.set([0x15, 0x10, 0, 0, 12, 0, 0, 0, 0, 0]);
  target.submit(task);
  t.equal((await run(TEST_UNIT_READY)).code, '02/04/1b');
  master.release();
  while ((await run(TEST_UNIT_READY)).code === '02/04/1b') await new Promise(setImmediate);
  t.equal(task.ends, ends, 'nothing follows');
  t.equal((await run(READ)).data[0], PATTERN);
});
