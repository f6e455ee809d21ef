/** A connection on real sockets: back-pressure, pools, and what a dying peer leaves behind. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { dataOut, isid, OP, type Pdu } from '../../conformance/rfc7143/pdu.js';
import { read10 as read10Cdb, write10 as write10Cdb } from '../../conformance/rfc7143/scsi.js';
import { Session as RawSession } from '../../conformance/rfc7143/session.js';
import type { Target } from '../../conformance/rfc7143/target.js';
import { SILENT, startServer, TARGET } from './support.js';

/** A login request straight to the full feature phase, and commands, as bytes. */
function login(): Buffer {
  const text = Buffer.from(`InitiatorName=iqn.2026-11.example:i\0SessionType=Normal\0TargetName=${TARGET}\0MaxRecvDataSegmentLength=262144\0MaxBurstLength=1048576\0InitialR2T=No\0`); // prettier-ignore
  const header = Buffer.alloc(48);
  header[0] = 0x43;
  header[1] = 0x87;
  header.writeUIntBE(text.length, 5, 3);
  header.writeUInt32BE(1, 16);
  header.writeUInt32BE(1, 24);
  return Buffer.concat([header, text, Buffer.alloc(-text.length & 3)]);
}

function read10(cmdSN: number, lba: number, blocks: number): Buffer {
  const header = Buffer.alloc(48);
  header[0] = 0x01;
  header[1] = 0xc1;
  header.writeUInt32BE(cmdSN, 16);
  header.writeUInt32BE(blocks * 512, 20);
  header.writeUInt32BE(cmdSN, 24);
  header[32] = 0x28;
  header.writeUInt32BE(lba, 34);
  header.writeUInt16BE(blocks, 39);
  return header;
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(login());
  const answer = await new Promise<Buffer>((resolve) => socket.once('data', resolve));
  if (answer[36] !== 0) throw new Error(`login status ${answer[36]}`);
  return socket;
}

void t.test(
  'a fault of our own in a login is answered by 0300h (target error), and told to the operator',
  async (t) => {
    const told: string[] = [];
    const { server, port } = await startServer(
      {},
      {
        authentication: () => {
          throw new Error('a fault of our own');
        },
      },
      { log: { ...SILENT, error: (_fields, message) => told.push(message) } },
    );
    const socket = connect(port, '127.0.0.1');
    socket.write(login());
    const [answer] = (await once(socket, 'data')) as [Buffer];
    t.equal(answer.readUInt16BE(36), 0x0300);
    await once(socket, 'close');
    t.same(told, ['internal error: the login is refused']);
    await server.close(0);
  },
);

/** Reads until `bytes` have come and returns how many PDUs with status were in them. */
async function drain(socket: Socket, statuses: number): Promise<number> {
  let seen = 0;
  let pending = Buffer.alloc(0);
  for await (const chunk of socket) {
    pending = Buffer.concat([pending, chunk as Buffer]);
    for (;;) {
      if (pending.length < 48) break;
      const length = pending.readUIntBE(5, 3);
      const total = 48 + length + (-length & 3);
      if (pending.length < total) break;
      if ((pending[0] & 0x3f) === 0x25 && (pending[1] & 1) === 1) seen++;
      pending = pending.subarray(total);
    }
    if (seen >= statuses) return seen;
  }
  return seen;
}

void t.test(
  'a peer that reads nothing stalls itself, in bounded memory, and goes on when it reads',
  async (t) => {
    const { server, port } = await startServer({ connectionBufferBytesMax: 2 << 20 });
    const socket = await open(port);
    socket.pause();
    const before = process.memoryUsage().arrayBuffers;
    const commands = 100;
    for (let i = 0; i < commands; i++) socket.write(read10(1 + i, 0, 2048));
    await new Promise((resolve) => setTimeout(resolve, 200));
    const grown = process.memoryUsage().arrayBuffers - before;
    t.ok(grown < 32 << 20, `100 MiB were asked for, ${grown >> 20} MiB are held`);
    t.equal(await drain(socket, commands), commands, 'every answer comes in the end');
    socket.destroy();
    await server.close(0);
  },
);

void t.test(
  'however much has come, a turn of the event loop takes in no more than the receive buffer',
  async (t) => {
    const { server, port, memory } = await startServer();
    const socket = await open(port);
    let taken = 0;
    let most = 0;
    let writes = 0;
    const submit = memory.submit.bind(memory);
    memory.submit = (task) => {
      writes++;
      most = Math.max(most, (taken += 65_536));
      submit(task);
    };
    let running = true;
    const turn = (): void => {
      taken = 0;
      if (running) setImmediate(turn);
    };
    turn();
    const each = 100;
    const window = Buffer.concat(Array.from({ length: each }, (_, i) => write10(1 + i, 0, 128)));
    socket.write(window);
    await until(() => writes === each);
    running = false;
    t.ok(most <= 1 << 20, `${most} bytes`);
    socket.destroy();
    await server.close(0);
  },
);

void t.test('a second connection is served while the first one is stalled', async (t) => {
  const { server, port } = await startServer({ connectionBufferBytesMax: 1 << 20 });
  const first = await open(port);
  first.pause();
  for (let i = 0; i < 50; i++) first.write(read10(1 + i, 0, 2048));
  const second = await open(port);
  second.write(read10(1, 8, 8));
  t.equal(await drain(second, 1), 1);
  first.destroy();
  second.destroy();
  await server.close(0);
});

void t.test('a connection that breaks ends its session and its tasks (RFC 7143 §4.3)', async (t) => {
  const { server, port, memory } = await startServer();
  memory.stuckFromLba = 1000;
  const socket = await open(port);
  socket.write(read10(1, 1000, 8));
  await until(() => memory.stuck.size === 1);
  t.equal(server.sessions().length, 1);
  socket.destroy();
  await until(() => server.sessions().length === 0);
  t.equal(memory.stuck.size, 0);
  t.same(memory.ends, ['connection-lost']);
  await server.close(0);
});

void t.test('PDUs may be split at any byte', async (t) => {
  const { server, port, memory } = await startServer();
  memory.memory.fill(0x5a, 0, 4096);
  const socket = await open(port);
  for (const byte of read10(1, 0, 8)) {
    await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve));
  }
  t.equal(await drain(socket, 1), 1);
  socket.destroy();
  await server.close(0);
});

void t.test('closing asks for a logout first and then closes what is left', async (t) => {
  const { server, port } = await startServer();
  const socket = await open(port);
  const heard: Buffer[] = [];
  socket.on('data', (chunk) => heard.push(chunk));
  const gone = new Promise((resolve) => socket.once('close', resolve));
  await server.close(100);
  await gone;
  const message = Buffer.concat(heard);
  t.equal(message[0] & 0x3f, 0x32, 'asynchronous message');
  t.equal(message[36], 1, 'event: logout request');
  t.equal(server.sessions().length, 0);
});

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it never came');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

void t.test(
  'several large asynchronous answers at once all arrive (each write is released once)',
  async (t) => {
    const { server, port, memory } = await startServer();
    memory.asynchronous = true;
    const socket = await open(port);
    socket.pause();
    const commands = 64;
    for (let i = 0; i < commands; i++) socket.write(read10(1 + i, 0, 1024));
    await until(() => memory.answered >= 8);
    t.equal(await drain(socket, commands), commands);
    socket.destroy();
    await server.close(0);
  },
);

void t.test(
  'asynchronous reads of any length bring their own data, whatever their memory held before',
  async (t) => {
    const { server, port, memory } = await startServer();
    memory.asynchronous = true;
    for (let block = 0; block < 512; block++) memory.memory.fill(block % 251, block * 512, (block + 1) * 512);
    const session = await RawSession.connect(targetAt(port));
    await session.enter(targetAt(port), {
      keepUnitAttention: true,
      keys: { MaxRecvDataSegmentLength: '8192' },
    });
    for (let round = 0; round < 5; round++) {
      const wanted = [31, 1, 8, 100, 2, 32, 16, 7, 64, 33].map((blocks, i) => {
        const lba = 17 * i + round;
        const itt = session.sendCommand({ cdb: read10Cdb(lba, blocks), read: blocks * 512 });
        return { itt, lba, blocks };
      });
      for (const { itt, lba, blocks } of wanted) {
        const { status, data } = await session.finish(itt, { read: blocks * 512 });
        t.equal(status, 0);
        t.ok(data.equals(memory.memory.subarray(lba * 512, (lba + blocks) * 512)), `${blocks} from ${lba}`);
      }
    }
    t.same(session.connection.violations, []);
    session.connection.destroy();
    await server.close(0);
  },
);

void t.test(
  'the end of what a peer sends ends its session at once, though answers wait that it does not take (§4.2.6)',
  async (t) => {
    const { server, port, memory } = await startServer();
    const socket = await open(port);
    socket.pause();
    memory.stuckFromLba = 100_000;
    for (let i = 0; i < 12; i++) socket.write(read10(1 + i, 0, 2048));
    socket.write(read10(13, 100_000, 8));
    await until(() => memory.stuck.size === 1);
    socket.end();
    await until(() => memory.attached.size === 0);
    t.equal(memory.stuck.size, 0);
    t.same(memory.ends, ['connection-lost']);
    // The unread answers keep the peer's side open: only the target's own end was in question.
    t.notOk(socket.destroyed);
    socket.destroy();
    await server.close(0);
  },
);

/** A write whose data come with it. */
function write10(cmdSN: number, lba: number, blocks: number): Buffer {
  const header = read10(cmdSN, lba, blocks);
  header[1] = 0xa1;
  header[32] = 0x2a;
  header.writeUIntBE(blocks * 512, 5, 3);
  return Buffer.concat([header, Buffer.alloc(blocks * 512, 0x42)]);
}

void t.test(
  'a peer whose data wait for a slow medium is not taken for dead, until it really is (§11.19)',
  async (t) => {
    const { server, port, memory } = await startServer({
      connectionBufferBytesMax: 1 << 20,
      nopIntervalMs: 100,
      nopTimeoutMs: 100,
    });
    memory.stuckFromLba = 0;
    memory.keeps = true;
    const socket = await open(port);
    for (let i = 0; i < 40; i++) socket.write(write10(1 + i, 8 * i, 128));
    await until(() => memory.stuck.size >= 16);
    // Two looks of the server's housekeeping, a second apart, and one more for luck.
    await new Promise((resolve) => setTimeout(resolve, 3200));
    t.equal(server.sessions().length, 1);
    socket.destroy();
    await until(() => server.sessions().length === 0);
    await server.close(0);
  },
);

void t.test(
  'a logout is answered at once while commands hang in the medium, and ends them (§11.14.5)',
  async (t) => {
    const { server, port, memory } = await startServer();
    memory.stuckFromLba = 1000;
    const socket = await open(port);
    for (let i = 0; i < 4; i++) socket.write(read10(1 + i, 1000, 8));
    await until(() => memory.stuck.size === 4);
    const logout = Buffer.alloc(48);
    logout[0] = 0x46;
    logout[1] = 0x80;
    logout.writeUInt32BE(99, 16);
    logout.writeUInt32BE(5, 24);
    const heard: Buffer[] = [];
    socket.on('data', (chunk) => heard.push(chunk));
    const gone = new Promise((resolve) => socket.once('close', resolve));
    socket.write(logout);
    await gone;
    const answer = Buffer.concat(heard);
    t.equal(answer.length, 48, 'nothing but the response');
    t.equal(answer[0] & 0x3f, 0x26);
    t.equal(answer[2], 0, 'closed');
    await until(() => memory.ends.length > 0);
    t.equal(memory.stuck.size, 0);
    t.same(memory.ends, ['logout']);
    await server.close(0);
  },
);

void t.test(
  'many large writes at once to a slow medium hold no more than the budget, and all end when it has caught up',
  async (t) => {
    const { server, port, memory } = await startServer({ connectionBufferBytesMax: 1 << 20 });
    memory.stuckFromLba = 0;
    memory.keeps = true;
    const session = await RawSession.connect(targetAt(port));
    await session.enter(targetAt(port), {
      keepUnitAttention: true,
      keys: { InitialR2T: 'Yes', ImmediateData: 'No', MaxRecvDataSegmentLength: '65536' },
    });
    const half = 65_536;
    const r2ts: Pdu[] = [];
    for (let n = 0; n < 40; n++) {
      session.sendCommand({ cdb: write10Cdb(512 * n, 256), write: Buffer.alloc(2 * half) });
      r2ts.push(await session.expect(OP.R2T));
    }
    const sendHalf = (which: 0 | 1): void => {
      for (const { itt, ttt } of r2ts)
        session.connection.send(
          dataOut({
            itt,
            ttt,
            expStatSN: session.expStatSN,
            dataSN: which,
            offset: which * half,
            data: Buffer.alloc(half),
            final: which === 1,
          }),
        );
    };
    sendHalf(0);
    await until(() => memory.keptBytes >= 1 << 20);
    await new Promise((resolve) => setTimeout(resolve, 100));
    t.ok(memory.keptBytes <= (1 << 20) + 2 * half, `${memory.keptBytes} bytes are held of ${40 * half}`);
    memory.unstick();
    sendHalf(1);
    for (const { itt } of r2ts) t.equal((await session.finish(itt, {})).status, 0);
    t.equal(memory.keptBytes, 0);
    session.connection.destroy();
    await until(() => server.sessions().length === 0);
    await server.close(0);
  },
);

const targetAt = (port: number): Target => ({
  host: '127.0.0.1',
  port,
  iqn: TARGET,
  lun: 0,
  profile: {},
  sessions: [],
  freshIsid: () => isid(0x77),
  stop: () => Promise.resolve(),
});

void t.test('the time limit of a login does not go by the clock that an operator or NTP sets', async (t) => {
  const { server, port } = await startServer({ loginTimeoutMs: 30_000 });
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await until(() => server.connections === 1);
  const now = Date.now;
  t.teardown(() => (Date.now = now));
  Date.now = () => now() + 86_400_000;
  // Housekeeping runs every second.
  const closed = await Promise.race([
    once(socket, 'close').then(() => true),
    new Promise((resolve) => setTimeout(() => resolve(false), 2500)),
  ]);
  Date.now = now;
  t.equal(closed, false, 'the login has all of its time');
  socket.destroy();
  await server.close(0);
});
