/** The order that task attributes ask for, and what task management does to tasks that run and tasks that wait (SAM-6 §7, §8). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { TASK_MANAGEMENT as TMF, TASK_MANAGEMENT_RESPONSE as RESPONSE } from '../../src/scsi/port.js';
import { TASK_ATTRIBUTE as ATTRIBUTE } from '../../src/scsi/task.js';
import type { Task } from '../../src/scsi/task.js';
import { BOTH, bench, cdb10 } from './support.js';
import type { Bench, TestTask } from './support.js';

const [A, B] = ['a', 'b'].map((name) => `iqn.2024-01.org.example:${name}`);
const CONFLICT = 0x18;
const TASK_ABORTED = 0x40;
const TUR = [0, 0, 0, 0, 0, 0];
const { SIMPLE, ORDERED, HEAD_OF_QUEUE } = ATTRIBUTE;

const turns = async (count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await new Promise(setImmediate);
};

/** A WRITE whose data `deliver` brings: it is under way until then. */
const write = ({ start }: Bench, nexus: Nexus, attribute: number, lun = 0): TestTask =>
  start(nexus, lun, cdb10(0x2a, 0, 1), Buffer.alloc(512), (task) => {
    task.attribute = attribute;
    task.withheld = true;
  });

/** Under way: it has asked for its data. */
const started = (tasks: TestTask[]): boolean[] => tasks.map((task) => task.handler !== undefined);

interface Asked {
  lun?: number;
  task?: Task;
  spared?: ReadonlySet<Task>;
}

/** Response of the function so far, and how often it has come. */
function ask({ target }: Bench, nexus: Nexus, code: number, { lun = 0, task, spared }: Asked = {}) {
  const answer = { response: -1, times: 0 };
  const request = { nexus, function: code, lunHigh: lun << 16, lunLow: 0, task };
  target.manage(spared === undefined ? request : { ...request, spared }, (response) => {
    answer.response = response;
    answer.times++;
  });
  return answer;
}

void t.test(
  'ORDERED tasks run alone, one after the other, and SIMPLE ones side by side (SAM-6 §8.6)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const tasks = [ORDERED, ORDERED, SIMPLE, ATTRIBUTE.UNTAGGED, ORDERED, SIMPLE].map((attribute) =>
      write(b, a, attribute),
    );
    const end = async (...indices: number[]): Promise<void> => {
      for (const index of indices) {
        tasks[index].deliver();
        t.equal((await tasks[index].whenEnded()).status, 0);
      }
    };
    t.same(started(tasks), [true, false, false, false, false, false], 'nothing is before the first');
    const head = write(b, a, HEAD_OF_QUEUE);
    t.same(started([head]), [true], 'HEAD OF QUEUE waits for nobody');
    await end(0);
    t.same(started(tasks), [true, false, false, false, false, false], 'it is older than the second now');
    head.deliver();
    await head.whenEnded();
    t.same(started(tasks), [true, true, false, false, false, false]);
    await end(1);
    t.same(started(tasks), [true, true, true, true, false, false]);
    await end(2);
    t.same(started(tasks), [true, true, true, true, false, false], 'one that is older is under way');
    await end(3);
    t.same(started(tasks), [true, true, true, true, true, false]);
    t.ok(a.paths[0]?.special);
    await end(4, 5);
    t.notOk(a.paths[0]?.special, 'nothing is to be looked at any more');
    t.equal(
      tasks.concat(head).reduce((sum, { ends }) => sum + ends, 0),
      7,
    );
  },
);

void t.test('A HEAD OF QUEUE task that ends beside an ORDERED one lets no younger one start', async (t) => {
  const b = bench();
  const a = b.login(A);
  const [, younger, head] = [ORDERED, SIMPLE, HEAD_OF_QUEUE].map((attribute) => write(b, a, attribute));
  head.deliver();
  t.equal((await head.whenEnded()).status, 0);
  t.same(started([younger]), [false]);
});

void t.test('A task that waited is checked when it starts, not before', async (t) => {
  const b = bench();
  const [a, other] = [b.login(A), b.login(B)];
  const first = write(b, a, ORDERED);
  const reserve = b.start(a, 0, [0x16, 0, 0, 0, 0, 0]);
  const read = b.start(other, 0, cdb10(0x28, 0, 1));
  t.notOk(reserve.ended || read.ended);
  first.deliver();
  t.equal((await reserve.whenEnded()).status, 0);
  t.equal((await read.whenEnded()).status, CONFLICT);
});

void t.test('An attribute that there is not ends the command, ACA too without one (SAM-6 §8.9)', (t) => {
  const b = bench();
  const a = b.login(A);
  for (const attribute of [ATTRIBUTE.ACA, 5, 7]) {
    const outcome = b.start(a, 0, TUR, undefined, (task) => (task.attribute = attribute)).outcome();
    t.same([outcome.code, outcome.ends], ['05/49/00', 1]);
  }
  t.equal(b.start(a, 0, TUR, undefined, (task) => (task.attribute = HEAD_OF_QUEUE)).outcome().status, 0);
  t.end();
});

void t.test('A task that waits is aborted at once, and those behind it go on (SAM-6 §7.2)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const [first, second, third] = [SIMPLE, ORDERED, SIMPLE].map((attribute) => write(b, a, attribute));
  t.equal(ask(b, a, TMF.QUERY_TASK, { task: second }).response, RESPONSE.FUNCTION_SUCCEEDED);
  t.same(ask(b, a, TMF.ABORT_TASK, { task: second }), { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
  t.same([second.aborted, second.status, second.ends], [true, TASK_ABORTED, 1]);
  t.same(started([first, second, third]), [true, false, true], 'nothing holds it back');
  t.equal(ask(b, a, TMF.QUERY_TASK, { task: second }).response, RESPONSE.FUNCTION_COMPLETE);
  for (const task of [first, third]) {
    task.deliver();
    t.equal((await task.whenEnded()).status, 0);
  }
  t.notOk(a.paths[0]?.special);
});

void t.test('An ORDERED task that is aborted lets others start when it is over, not before', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.master.held = true;
  const ordered = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512), (task) => (task.attribute = ORDERED));
  const younger = write(b, a, SIMPLE);
  const answer = ask(b, a, TMF.ABORT_TASK, { task: ordered });
  t.ok(ordered.aborted);
  t.same([answer.times, ordered.ends, ...started([younger])], [0, 0, false], 'its write is on its way');
  b.master.release();
  await turns(2);
  t.same(answer, { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
  t.same([ordered.ends, ...started([younger])], [1, true]);
});

void t.test(
  'ABORT TASK and QUERY TASK know tasks of their own nexus and LUN alone (SAM-6 §7.2, §7.9)',
  (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    const task = write(b, a, SIMPLE);
    for (const [nexus, lun] of [
      [other, 0],
      [a, 1],
    ] as const) {
      t.equal(ask(b, nexus, TMF.ABORT_TASK, { lun, task }).response, RESPONSE.TASK_DOES_NOT_EXIST);
      t.equal(ask(b, nexus, TMF.QUERY_TASK, { lun, task }).response, RESPONSE.FUNCTION_COMPLETE);
      t.equal(ask(b, nexus, TMF.QUERY_TASK_SET, { lun }).response, RESPONSE.FUNCTION_COMPLETE);
    }
    t.equal(ask(b, a, TMF.ABORT_TASK).response, RESPONSE.TASK_DOES_NOT_EXIST, 'the transport has it no more');
    t.equal(ask(b, a, TMF.QUERY_TASK).response, RESPONSE.FUNCTION_COMPLETE);
    t.notOk(task.aborted);
    t.same(ask(b, a, TMF.QUERY_TASK_SET), { response: RESPONSE.FUNCTION_SUCCEEDED, times: 1 });
    const second = write(b, a, SIMPLE);
    t.same(ask(b, a, TMF.QUERY_TASK_SET), { response: RESPONSE.FUNCTION_SUCCEEDED, times: 1 }, 'of two, too');
    t.same(ask(b, a, TMF.ABORT_TASK, { task }), { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
    t.same([task.aborted, second.aborted], [true, false]);
    t.end();
  },
);

void t.test('Functions for many tasks spare those that belong behind them', (t) => {
  for (const [code, lun] of [
    [TMF.ABORT_TASK_SET, 0],
    [TMF.CLEAR_TASK_SET, 0],
    [TMF.LOGICAL_UNIT_RESET, 0],
    [TMF.TARGET_WARM_RESET, 0],
    [TMF.TARGET_COLD_RESET, 0],
    [TMF.I_T_NEXUS_RESET, 0],
  ] as const) {
    const b = bench();
    const a = b.login(A);
    const [before, behind] = [write(b, a, SIMPLE), write(b, a, SIMPLE)];
    const answer = ask(b, a, code, { lun, spared: new Set([behind]) });
    t.same([before.aborted, behind.aborted], [true, false], `function ${code}`);
    t.same(answer, { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
  }
  t.end();
});

void t.test(
  'ABORT TASK SET and I_T NEXUS RESET leave the tasks of other LUNs and nexuses (SAM-6 §7.3)',
  (t) => {
    for (const code of [TMF.ABORT_TASK_SET, TMF.I_T_NEXUS_RESET]) {
      const b = bench();
      const a = b.login(A);
      const other = b.login(B);
      const tasks = [write(b, a, SIMPLE), write(b, other, SIMPLE)];
      b.slave.slow = true;
      const read = b.start(a, 1, cdb10(0x28, 0, 1));
      t.equal(
        ask(b, a, code).times,
        code === TMF.I_T_NEXUS_RESET ? 0 : 1,
        'of the slave a read is on its way',
      );
      t.same(
        [...tasks, read].map(({ aborted }) => aborted),
        [true, false, code === TMF.I_T_NEXUS_RESET],
      );
    }
    t.end();
  },
);

void t.test(
  'A reset of the target asks for the right to see every unit, and is done once (SAM-6 §7)',
  async (t) => {
    const b = bench();
    const one = b.login(A, { luns: [BOTH[1]] });
    const all = b.login(B);
    b.master.held = true;
    const task = b.start(all, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    for (const code of [TMF.TARGET_WARM_RESET, TMF.TARGET_COLD_RESET]) {
      t.same(ask(b, one, code), { response: RESPONSE.AUTHORIZATION_FAILED, times: 1 });
      t.notOk(task.aborted);
    }
    const answer = ask(b, all, TMF.TARGET_COLD_RESET);
    t.ok(task.aborted);
    t.equal(answer.times, 0, 'its write is on its way');
    b.master.release();
    await turns(2);
    t.same(answer, { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
    t.equal((await b.run(one, 1, TUR)).code, '', 'on a removable unit only who asked is told');
    t.equal((await b.run(all, 1, TUR)).code, '06/29/03');
    t.equal((await b.run(all, 0, TUR)).code, '06/29/03');
  },
);

void t.test(
  'A logical unit reset undoes RESERVE (6), PREVENT and mode pages that are not saved (SAM-6 §6.3.3)',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    const prevent = [0x1e, 0, 0, 0, 1, 0];
    const list = Buffer.from('00000000' + '0812' + '00'.repeat(18), 'hex');
    const cache = async (): Promise<number> =>
      (await b.run(other, 0, [0x1a, 8, 8, 0, 255, 0])).data[6] & 0x04;
    t.equal((await b.run(a, 0, [0x15, 0x10, 0, 0, list.length, 0], list)).status, 0, 'WCE=0');
    await b.run(other, 0, TUR);
    t.equal(await cache(), 0);
    await b.run(a, 1, prevent);
    t.equal((await b.run(a, 0, [0x16, 0, 0, 0, 0, 0])).status, 0);
    t.equal(ask(b, a, TMF.LOGICAL_UNIT_RESET).response, RESPONSE.FUNCTION_COMPLETE);
    t.equal(b.target.slaveHolders().length, 1, 'the slave was not reset');
    t.equal((await b.run(other, 0, TUR)).code, '06/29/03');
    t.equal((await b.run(other, 0, TUR)).status, 0, 'no reservation');
    t.equal(await cache(), 0x04);
    t.notOk(other.paths[0]?.special, 'nothing is to be looked at any more');
    t.equal(ask(b, other, TMF.LOGICAL_UNIT_RESET, { lun: 1 }).response, RESPONSE.FUNCTION_COMPLETE);
    t.same(b.target.slaveHolders(), []);
  },
);

void t.test('An I_T nexus reset ends what the nexus held, of nobody else (SAM-6 §6.3.5)', async (t) => {
  const b = bench();
  const [a, other] = [b.login(A), b.login(B)];
  for (const nexus of [a, other]) await b.run(nexus, 1, [0x1e, 0, 0, 0, 1, 0]);
  t.equal((await b.run(other, 0, [0x16, 0, 0, 0, 0, 0])).status, 0);
  ask(b, a, TMF.I_T_NEXUS_RESET);
  t.same(
    b.target.slaveHolders().map(({ initiator }) => initiator),
    [B],
  );
  t.equal((await b.run(a, 0, TUR)).code, '06/29/07');
  t.equal((await b.run(a, 0, TUR)).status, CONFLICT, "another's reservation stays");
  t.equal((await b.run(other, 0, TUR)).code, '');
  ask(b, other, TMF.I_T_NEXUS_RESET);
  t.equal((await b.run(a, 0, TUR)).status, 0);
  t.notOk(a.paths[0]?.special, 'nothing is to be looked at any more');
});

void t.test('CLEAR ACA clears nothing, since there is no ACA (SAM-6 §7.4)', async (t) => {
  const b = bench();
  const [a, other] = [b.login(A), b.login(B)];
  const task = write(b, a, SIMPLE);
  t.same(ask(b, a, TMF.CLEAR_ACA), { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
  t.notOk(task.aborted);
  t.same([(await b.run(a, 0, TUR)).code, (await b.run(other, 0, TUR)).code], ['', '']);
});

void t.test('LUNs with gaps between them are reset all the same', async (t) => {
  const b = bench();
  const luns = [
    { ...BOTH[0], lun: 3 },
    { ...BOTH[1], lun: 9 },
  ];
  const a = b.login(A, { luns: [BOTH[0]] });
  b.target.changeAccess(a, luns);
  for (const lun of [3, 9]) t.equal((await b.run(a, lun, TUR)).code, '06/3f/0e');
  for (const [code, attention] of [
    [TMF.TARGET_COLD_RESET, '06/29/03'],
    [TMF.I_T_NEXUS_RESET, '06/29/07'],
  ] as const) {
    t.same(ask(b, a, code), { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
    for (const lun of [3, 9]) t.equal((await b.run(a, lun, TUR)).code, attention);
  }
  b.target.changeAccess(a, luns.slice(1));
  t.equal(ask(b, a, TMF.TARGET_COLD_RESET).response, RESPONSE.AUTHORIZATION_FAILED);
});

void t.test(
  'An ORDERED task that aborts others as it starts is alone all the same (SAM-6 §8.6)',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    const reserveOut = (
      nexus: Nexus,
      action: number,
      keys: [number, number],
      attribute: number,
    ): TestTask => {
      const list = Buffer.alloc(24);
      [list[7], list[15]] = keys;
      list[20] = 0x01; // APTPL: it ends when that is durable
      return b.start(
        nexus,
        0,
        [0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0],
        list,
        (task) => (task.attribute = attribute),
      );
    };
    for (const [index, nexus] of [a, other].entries())
      t.equal((await reserveOut(nexus, 0, [0, index + 1], SIMPLE).whenEnded()).status, 0, 'REGISTER');
    const first = write(b, a, SIMPLE);
    const preempt = reserveOut(a, 5, [1, 2], ORDERED);
    const [aborted, younger] = [write(b, other, SIMPLE), write(b, a, SIMPLE)];
    first.deliver();
    t.same([aborted.aborted, preempt.ended, ...started([younger])], [true, false, false]);
    t.equal((await preempt.whenEnded()).status, 0, 'PREEMPT AND ABORT');
    t.same(started([younger]), [true]);
  },
);

void t.test(
  'A read in several pieces that is aborted is over with the last one, and sends none',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    b.slave.slow = true;
    const reads: (() => void)[] = [];
    b.slave.readAsync = (_position, _buffer, _offset, _length, done) =>
      void reads.push(() => done(MEDIUM.OK));
    const task = b.start(a, 1, cdb10(0x28, 0, 3), undefined, (given) => (given.chunkBytes = 512));
    const answer = ask(b, a, TMF.ABORT_TASK, { lun: 1, task });
    t.equal(reads.length, 3);
    for (const [index, read] of reads.entries()) {
      t.same([task.ends, answer.times], [0, 0], `${index} of 3`);
      read();
    }
    await turns(1);
    t.same([task.status, task.ends, task.dataIn.length], [TASK_ABORTED, 1, 0]);
    t.same(answer, { response: RESPONSE.FUNCTION_COMPLETE, times: 1 });
  },
);

void t.test('Two functions that wait for the same task are both answered, each once', async (t) => {
  const b = bench();
  const [a, other] = [b.login(A), b.login(B)];
  b.master.held = true;
  const task = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
  let discards = 0;
  task.discard = () => {
    task.aborted = true;
    discards++;
  };
  const answers = [ask(b, a, TMF.ABORT_TASK_SET), ask(b, other, TMF.CLEAR_TASK_SET)];
  const idle = ask(b, other, TMF.ABORT_TASK_SET);
  t.equal(idle.times, 1, 'who has none waits for none');
  const apart = write(b, other, SIMPLE);
  t.same(
    answers.map(({ times }) => times),
    [0, 0],
  );
  b.master.release();
  await turns(2);
  t.same(answers, Array(2).fill({ response: RESPONSE.FUNCTION_COMPLETE, times: 1 }));
  t.same([discards, task.ends, apart.aborted], [1, 1, false]);
});

void t.test('A device that fails a command is told with its place, and counted (SBC-5 §4.18)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const from = { initiator: A, address: '192.0.2.1' };
  const { master: counted } = b.target.statistics();
  b.master.fail = MEDIUM.READ_ERROR;
  const read = await b.run(a, 0, cdb10(0x28, 7, 1));
  t.same([read.code, read.sense?.[0], read.sense?.readUInt32BE(3)], ['03/11/00', 0xf0, 7]);
  b.master.fail = MEDIUM.FAILED;
  const same = await b.run(a, 0, cdb10(0x41, 9, 1), Buffer.alloc(512));
  t.same([same.code, same.sense?.[0], same.sense?.readUInt32BE(3)], ['04/3e/01', 0xf0, 9]);
  t.equal((await b.run(a, 0, cdb10(0x2a, 9, 1), Buffer.alloc(512))).code, '04/3e/01');
  t.equal((await b.run(a, 0, cdb10(0x35, 0, 0))).code, '04/3e/01');
  t.same([counted.readErrors, counted.writeErrors], [1, 3]);
  const message = 'the device failed a command';
  t.match(b.warnings, [
    { message, fields: { unit: 'master', lba: 7, ...from } },
    { message, fields: { unit: 'master', lba: 9, ...from } },
    { message, fields: { unit: 'master', ...from } },
    { message, fields: { unit: 'master', ...from } },
  ]);
  b.master.fail = MEDIUM.OK;
  b.warnings.length = 0;
  await b.run(a, 1, cdb10(0x2a, 0, 1), Buffer.alloc(512));
  b.slave.present = false;
  await b.run(a, 1, cdb10(0x28, 0, 1));
  for (const [result, code] of [
    [MEDIUM.WRITE_PROTECTED, '07/27/00'],
    [MEDIUM.ABSENT, '02/3a/00'],
  ] as const) {
    b.master.write = () => result;
    t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, code, 'since a moment ago');
  }
  t.same(b.warnings, [], 'what is protected or absent has not failed');
  t.same([counted.readErrors, counted.writeErrors], [1, 3]);
});
