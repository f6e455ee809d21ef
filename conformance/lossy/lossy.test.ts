/**
 * Commands over a network that damages one PDU in a hundred, at error recovery levels 1 and 2: none may fail, and every
 * block must be as it was last written. LOSSY_COMMANDS, LOSSY_SESSIONS (up to 8), LOSSY_LEVELS and LOSSY_SEED choose
 * another run (`npm run lossy`).
 */
import t from 'tap';
import { randomFrom } from '../rfc7143/fuzz.js';
import { startTarget } from '../rfc7143/target.js';
import { RecoveringInitiator } from './initiator.js';
import { LossyProxy } from './proxy.js';
import { BLOCK_BYTES, type Work } from './task.js';

const commands = Number(process.env['LOSSY_COMMANDS'] ?? 1000);
const sessions = Number(process.env['LOSSY_SESSIONS'] ?? 4);
const levels = (process.env['LOSSY_LEVELS'] ?? '1,2').split(',').map(Number);
const seed = Number(process.env['LOSSY_SEED'] ?? 1);
/** Commands under way; each has blocks of its own, so that it knows what they hold. */
const WORKERS = 16;
const BLOCKS_EACH = 256;

t.setTimeout(240_000 + commands * 60);
const target = await startTarget();
t.teardown(() => target.stop());

/** Every eight bytes tell block and version. */
function fill(buffer: Buffer, block: number, version: number): void {
  for (let at = 0; at < buffer.length; at += 8) {
    buffer.writeUInt32LE(block, at);
    buffer.writeUInt32LE(version, at + 4);
  }
}

/** Faults and counts of one session, which runs until `left` is used up. */
async function session(
  level: number,
  index: number,
  left: { commands: number },
): Promise<Record<string, number>> {
  const own = seed * 100 + level * 10 + index;
  const proxy = new LossyProxy(
    target.port,
    { every: 100, cutEvery: level === 2 ? 25 : 0, lengths: level === 2 },
    own,
  );
  const initiator = new RecoveringInitiator({
    port: await proxy.start(),
    targetName: target.iqn,
    isid: target.freshIsid(),
    level,
    connections: level === 2 ? 2 : 1,
    keys: { MaxBurstLength: '32768', FirstBurstLength: '16384', MaxOutstandingR2T: '4' },
  });
  const failed = new Promise<never>((_, reject) => {
    initiator.onFailure = reject;
  });
  const counts = { compared: 0, wrong: 0, failed: 0 };
  // The new nexus' unit attention is no failure.
  let attentions = 1;

  async function work(worker: number): Promise<void> {
    const random = randomFrom(own * 100 + worker + 1);
    const first = (index * WORKERS + worker) * BLOCKS_EACH;
    const versions = new Uint32Array(BLOCKS_EACH);

    async function put(at: number, blocks: number): Promise<void> {
      const write = Buffer.alloc(blocks * BLOCK_BYTES);
      for (let i = 0; i < blocks; i++) {
        const version = (versions[at + i] ?? 0) + 1;
        versions[at + i] = version;
        fill(write.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES), first + at + i, version);
      }
      const immediateBytes = random(2) * Math.min(write.length, 4096);
      const rest = Math.min(write.length, 16_384) - immediateBytes;
      await run({ lba: first + at, blocks, write, immediateBytes, unsolicitedBytes: random(2) * rest });
    }

    async function get(at: number, blocks: number): Promise<void> {
      const none = { write: undefined, immediateBytes: 0, unsolicitedBytes: 0 };
      const data = await run({ lba: first + at, blocks, ...none });
      const wanted = Buffer.alloc(BLOCK_BYTES);
      for (let i = 0; i < blocks; i++) {
        fill(wanted, first + at + i, versions[at + i] ?? 0);
        counts.compared++;
        if (!data.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES).equals(wanted)) counts.wrong++;
      }
    }

    async function run(request: Work): Promise<Buffer> {
      const { status, data } = await initiator.run(request, worker);
      if (status === 2 && attentions-- > 0) return run(request);
      if (status !== 0) counts.failed++;
      return data;
    }

    // What was there before is not known: everything is written once.
    for (let at = 0; at < BLOCKS_EACH; at += 128) await put(at, 128);
    while (left.commands-- > 0) {
      const blocks = 1 + random(random(8) === 0 ? 128 : 16);
      const at = random(BLOCKS_EACH - blocks);
      if (random(2) === 0) await put(at, blocks);
      else await get(at, blocks);
    }
    for (let at = 0; at < BLOCKS_EACH; at += 128) await get(at, 128);
  }

  try {
    await initiator.start();
    await Promise.race([failed, Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)))]);
  } finally {
    initiator.stop();
    proxy.stop();
  }
  return { ...counts, ...proxy.counts, ...initiator.counts };
}

for (const level of levels) {
  void t.test(`${commands} commands at level ${level}, one PDU of a hundred damaged`, async (t) => {
    const left = { commands };
    const each = await Promise.all(
      Array.from({ length: sessions }, (_, index) => session(level, index, left)),
    );
    const sum: Record<string, number> = {};
    for (const one of each)
      for (const [key, value] of Object.entries(one)) sum[key] = (sum[key] ?? 0) + value;
    t.comment(`level ${level}, seed ${seed}, ${sessions} sessions: ${JSON.stringify(sum)}`);
    t.equal(sum['wrong'], 0, 'every block is as it was last written');
    t.equal(sum['failed'], 0, 'no command failed');
    const { pdus = 0, dropped = 0, headers = 0, data = 0, cuts = 0, compared = 0 } = sum;
    t.ok(dropped > 0 && headers > 0 && data > 0, 'there was something to recover from');
    t.ok(dropped + headers + data + cuts > pdus / 200, 'about one of a hundred');
    t.equal(cuts > 0, level === 2);
    t.ok(compared > sessions * WORKERS * BLOCKS_EACH);
  });
}
