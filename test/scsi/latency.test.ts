/** Which class a command is counted in, and what the log says of a slow one. */
import t from 'tap';
import { COMMAND_CLASSES, LATENCY_BOUNDS_SECONDS, Latencies } from '../../src/scsi/latency.js';
import { COMMANDS } from './commands.js';
import { bench, cdb10, cdb16 } from './support.js';

void t.test('Each command is counted in its class (SBC-5 §5, SPC-6 §6)', (t) => {
  const names = new Map(COMMANDS.map(({ opcode, name }) => [opcode, name]));
  const classOf = (opcode: number): string | undefined => {
    const latencies = new Latencies();
    latencies.add(opcode, 1000);
    const figures = latencies.figures();
    const classes = COMMAND_CLASSES.filter((name) => figures[name].sumSeconds === 1);
    t.equal(classes.length, 1);
    return classes[0];
  };
  const wanted = (name: string): string => {
    if (/^READ \(/.test(name)) return 'read';
    if (/^SYNCHRONIZE CACHE/.test(name)) return 'flush';
    if (name === 'UNMAP') return 'unmap';
    return /^(WRITE (\(|SAME|AND VERIFY|ATOMIC)|COMPARE AND WRITE)/.test(name) ? 'write' : 'other';
  };
  for (const [opcode, name] of names)
    if (opcode !== 0x7f && opcode !== 0x8b) t.equal(classOf(opcode), wanted(name), name);
  t.equal(classOf(0xff), 'other');
  t.end();
});

void t.test('Buckets go from 8 µs to 8.4 s in powers of two, and each takes what is below its bound', (t) => {
  t.equal(LATENCY_BOUNDS_SECONDS.length, 21);
  t.same([LATENCY_BOUNDS_SECONDS[0], LATENCY_BOUNDS_SECONDS[20]], [8e-6, 8.388608]);
  for (const [spanMs, bucket] of [
    [0, 0],
    [0.0079, 0],
    [0.008, 1],
    [0.0159, 1],
    [4194.303, 19],
    [4194.304, 20],
    [8388.607, 20],
    [8388.608, 21],
    [16_777.216, 21],
    [40_000, 21],
    [1e6, 21],
  ]) {
    const latencies = new Latencies();
    latencies.add(0x2a, spanMs);
    const { counts, sumSeconds } = latencies.figures().write;
    t.equal(counts.length, 22);
    t.same([counts.indexOf(1), sumSeconds], [bucket, spanMs / 1000], `${spanMs} ms`);
    t.equal(latencies.figures().read.counts.indexOf(1), -1);
  }
  t.end();
});

void t.test('A slow command is told with what an operator looks for', async (t) => {
  const b = bench();
  const nexus = b.login();
  b.target.slowMs = 20;
  const now = performance.now.bind(performance);
  t.teardown(() => (performance.now = now));
  performance.now = () => 5000;
  const after = async (cdb: number[] | Buffer, arrivedMs: number, data?: Buffer): Promise<void> => {
    const task = b.start(nexus, 0, cdb, data, (given) => (given.arrivedMs = arrivedMs));
    await task.whenEnded();
  };
  await after(cdb10(0x28, 100, 1), 4980.01);
  await after([0, 0, 0, 0, 0, 0], 0);
  t.same(b.warnings, [], 'not as long, or nobody knows since when');
  await after(cdb16(0x8a, 100, 2), 4979.96, Buffer.alloc(1024));
  await after([0x00, 0, 0, 0, 0, 0], 4980);
  const by = { unit: 'master', initiator: 'iqn.2024-01.org.example:host', address: '192.0.2.1' };
  t.same(b.warnings, [
    {
      fields: { ...by, class: 'write', opcode: '0x8a', position: 102 * 512, tookMs: 20 },
      message: 'slow I/O',
    },
    { fields: { ...by, class: 'other', opcode: '0x00', position: 0, tookMs: 20 }, message: 'slow I/O' },
  ]);
});
