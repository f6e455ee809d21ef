/**
 * Every I/O call of a short life fails in turn, once or from then on. Whatever fails: everybody gets an answer, a write
 * or sync that failed ends all writing (fail-stop), one that was read never does, and the next open finds what was
 * acknowledged and the slave as it was.
 */
import t from 'tap';
import { BLOCKS, Life, PARTITION_BYTES, blank, complaints } from './life.js';
import { FaultyStore, MemoryStore } from './stores.js';
import type { FaultKind } from './stores.js';

const over = (store: MemoryStore): MemoryStore => new MemoryStore(PARTITION_BYTES, store);

void t.test('The life without faults has no failures, and the check finds what is wrong', async (t) => {
  const store = new FaultyStore(PARTITION_BYTES, await blank());
  const life = new Life(store);
  await life.run();
  t.equal(life.failures, 0);
  t.same(await complaints(over(store), life), []);
  life.promised.set(BLOCKS[0], new Set([4711]));
  life.image?.set(BLOCKS[1], 4711);
  t.equal((await complaints(over(store), life)).length, 2);
});

for (const kind of ['read', 'pooled read', 'write', 'sync'] satisfies FaultKind[]) {
  for (const persistent of [false, true]) {
    for (const code of ['EIO', 'ENOSPC']) {
      const how = persistent ? 'from then on' : 'once';
      void t.test(`Every ${kind} fails in turn with ${code}, ${how}`, async (t) => {
        const base = await blank();
        const wrong: string[] = [];
        let tried = 0;
        for (let at = 0; ; at++, tried++) {
          const store = new FaultyStore(PARTITION_BYTES, base);
          store.fault = { kind, at, persistent, code };
          const life = new Life(store, kind === 'sync' && persistent);
          await life.run();
          if (!store.tripped) break;
          const name = `${kind} ${String(at)}`;
          const reading = kind === 'read' || kind === 'pooled read';
          if (!reading && life.failures === 0) wrong.push(`${name}: nobody was told`);
          const { engine } = life;
          if (reading && engine?.core.failure !== undefined) wrong.push(`${name}: it takes no more writes`);
          for (const what of life.wrongReads) wrong.push(`${name}: ${what}`);
          if (!reading && engine !== undefined) {
            if (engine.core.failure === undefined) wrong.push(`${name}: no fail-stop`);
            store.fault = undefined;
            const writes = store.calls.write;
            await engine.enable().catch(() => undefined);
            await engine.committer.checkpoint().catch(() => undefined);
            if (store.calls.write !== writes) wrong.push(`${name}: it was written on`);
          }
          for (const complaint of await complaints(over(store), life)) wrong.push(`${name}: ${complaint}`);
        }
        t.same(wrong, []);
        t.ok(tried > 5, `${String(tried)} calls failed in turn`);
      });
    }
  }
}
