import t from 'tap';
import { COMMANDS } from './commands.js';
import { bench, MemoryMedium } from './support.js';
import type { Outcome } from './support.js';

/** `npm run fuzz -- --what cdbs` makes it longer. */
const COMMANDS_EACH = Math.ceil(Number(process.env['FUZZ_COMMANDS'] ?? 12_000) / 3);
const SEED = Number(process.env['FUZZ_SEED'] ?? 1);
/** Tasks that are waited for at a time. */
const BATCH = 4000;

/** A small generator with a seed, so that a failure can be repeated. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
}

t.setTimeout(240_000 + COMMANDS_EACH * 10);

void t.test(
  'Whatever arrives, every task ends exactly once, nothing throws, and the slave does not change',
  async (t) => {
    for (const seed of [SEED, SEED + 1, SEED + 2]) {
      const random = generator(seed);
      const slave = new MemoryMedium(1 << 20);
      slave.bytes.fill(0x42);
      const b = bench({ master: new MemoryMedium(1 << 20), slave });
      const nexus = b.login();
      let outcomes: Promise<Outcome>[] = [];
      let good = 0;
      const settle = async (): Promise<void> => {
        const all = await Promise.all(outcomes);
        outcomes = [];
        if (!all.every(({ ends }) => ends === 1)) t.fail(`seed ${seed}: a task did not end once`);
        good += all.filter(({ status }) => status === 0).length;
      };
      for (let i = 0; i < COMMANDS_EACH; i++) {
        const command = COMMANDS[random(COMMANDS.length)];
        const cdb = Buffer.alloc(32);
        const style = random(4);
        for (let at = 0; at < cdb.length; at++) {
          const usage = command.usageData.at(at) ?? 0;
          // Mostly bits that the command knows, mostly small numbers; now and then anything.
          cdb[at] = style === 0 ? random(256) : random(style === 1 ? 256 : 3) & usage;
        }
        cdb[0] = style === 0 && random(4) === 0 ? random(256) : command.opcode;
        if (command.serviceAction !== undefined && style !== 0) {
          if (command.opcode === 0x7f) command.usageData.copy(cdb, 7, 7, 10);
          else cdb[1] = (cdb[1] & 0xe0) | command.serviceAction;
        }
        const out =
          random(3) === 0
            ? Buffer.from(Array.from({ length: random(600) }, () => random(random(2) === 0 ? 4 : 256)))
            : undefined;
        const task = b.start(nexus, random(8) === 0 ? random(4) : random(2), cdb, out, (task) => {
          task.expectedDataIn = random(2) === 0 ? random(10_000) : task.expectedDataIn;
          task.attribute = random(20) === 0 ? random(6) : 1;
          task.chunkBytes = 1 + random(5000);
          if (out !== undefined) task.chunkBytes = 512;
        });
        outcomes.push(task.whenEnded());
        if (random(200) === 0) b.master.slow = !b.master.slow;
        if (random(50) === 0) await new Promise(setImmediate);
        if (i % BATCH === BATCH - 1) await settle();
      }
      await settle();
      t.ok(good > 0, `${good} of ${COMMANDS_EACH} commands of seed ${seed} were good`);
      t.ok(slave.bytes.equals(Buffer.alloc(slave.capacityBytes, 0x42)));
    }
  },
);
