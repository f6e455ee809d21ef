/** Long work on a medium that is busy, slow or damaged: it goes on to its end, or ends with what is wrong. */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { MediumDone, MediumResult } from '../../src/scsi/medium.js';
import { bench, cdb10, cdb16, MemoryMedium } from './support.js';
import { told, watch } from './watch.js';

/** Never takes a write at once, only in its turn. */
class Busy extends MemoryMedium {
  override write(): MediumResult {
    return MEDIUM.PENDING;
  }
}

/** Part of its map can't be read: whoever wants to change something there waits, and hears of it. */
class Damaged extends MemoryMedium {
  override unmap(): MediumResult {
    return MEDIUM.PENDING;
  }

  override prepareWrite(_position: number, _length: number, done: MediumDone): MediumResult {
    setImmediate(() => done(MEDIUM.READ_ERROR));
    return MEDIUM.PENDING;
  }
}

void t.test('WRITE SAME on a medium that is always busy waits its turn for each step', async (t) => {
  const master = new Busy(4 << 20);
  const b = bench({ master });
  const seen = watch(master);
  t.equal((await b.run(b.login(), 0, cdb10(0x41, 8, 1200), Buffer.alloc(512, 3))).code, '');
  t.same(
    told(seen).filter((access) => access.startsWith('writeAsync')),
    ['writeAsync 8+512', 'writeAsync 520+512', 'writeAsync 1032+176'],
  );
  t.ok(master.bytes.subarray(8 * 512, 1208 * 512).equals(Buffer.alloc(1200 * 512, 3)));
});

void t.test('A command that changes blocks whose map cannot be read ends with a medium error', async (t) => {
  const b = bench({ master: new Damaged(4 << 20) });
  const nexus = b.login();
  const unmap = Buffer.alloc(24);
  unmap.writeUInt16BE(16, 2);
  unmap.writeUInt32BE(8, 16);
  const compare = cdb16(0x89, 8, 0);
  compare[13] = 1;
  for (const [name, cdb, data, code] of [
    ['UNMAP', [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], unmap, '03/11/00'],
    ['WRITE SAME with UNMAP', cdb10(0x41, 8, 8, 0x08), Buffer.alloc(512), '03/11/00'],
    ['COMPARE AND WRITE', compare, Buffer.alloc(1024), '03/11/00'],
    ['SANITIZE BLOCK ERASE', [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], Buffer.alloc(0), '03/31/03'],
  ] as const)
    t.equal((await b.run(nexus, 0, Buffer.from(cdb), data)).code, code, name);
});

void t.test(
  'READ CAPACITY names the last block, and (10) says when that takes (16) (SBC-5 §5.20)',
  async (t) => {
    for (const [blocks, ten] of [
      [16_384, 16_383],
      [2 ** 32, 0xffff_ffff],
      [2 ** 33, 0xffff_ffff],
    ]) {
      const b = bench({ master: new MemoryMedium(blocks * 512, { sparse: true }) });
      const nexus = b.login();
      const short = (await b.run(nexus, 0, cdb10(0x25, 0, 0))).data;
      t.same([short.length, short.readUInt32BE(0), short.readUInt32BE(4)], [8, ten, 512]);
      const long = (await b.run(nexus, 0, cdb16(0x9e, 0, 32, 0x10))).data;
      t.same([long.readBigUInt64BE(0), long.readUInt32BE(8)], [BigInt(blocks - 1), 512]);
    }
  },
);
