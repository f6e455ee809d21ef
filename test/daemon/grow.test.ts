/** Growing while initiators are logged in: each learns by CAPACITY DATA HAS CHANGED, and what was gained can be used. */
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { isid } from '../../conformance/rfc7143/pdu.js';
import { STATUS, senseTriple } from '../../conformance/rfc7143/scsi.js';
import { Session } from '../../conformance/rfc7143/session.js';
import { ask } from '../../src/admin/client.js';
import { PREFIX, serve, target } from './support.js';
import type { Served } from './support.js';

const MIB = 1 << 20;
const ASK_MS = 60_000;
const TEST_UNIT_READY = Buffer.alloc(6);
/** SBC-5 §5.20. */
const READ_CAPACITY_16 = Buffer.from([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);

function write16(block: number, blocks: number, opcode = 0x8a): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb.writeBigUInt64BE(BigInt(block), 2);
  cdb.writeUInt32BE(blocks, 10);
  return cdb;
}

async function login({ daemon }: Served, index: number): Promise<Session> {
  const { host, port } = daemon.portals[0];
  const site = {
    host,
    port,
    iqn: `${PREFIX}one`,
    lun: 0,
    profile: {},
    sessions: [] as Session[],
    freshIsid: () => isid(0x900 + index),
    stop: () => Promise.resolve(),
  };
  const session = await Session.login(site, { initiatorName: `iqn.2026-01.com.example:initiator-${index}` });
  for (let tries = 0; tries < 5; tries++) {
    if ((await session.execute({ cdb: TEST_UNIT_READY })).status === STATUS.GOOD) return session;
  }
  throw new Error('the logical unit does not become ready');
}

async function capacity(session: Session): Promise<number> {
  const { data } = await session.execute({ cdb: READ_CAPACITY_16, read: 32 });
  return Number(data.readBigUInt64BE(0)) + 1;
}

void t.test('Every session hears of a grow once, on LUN 0, and can write what was gained', async (t) => {
  const served = await serve(t, ['one'], () => ({
    portals: [{ listen: '127.0.0.1:0' }],
    targets: [target('one')],
  }));
  const sessions = [await login(served, 1), await login(served, 2)];
  t.teardown(() => sessions.forEach(({ connection }) => connection.destroy()));
  const [session] = sessions;
  const before = await capacity(session);
  const grow = { command: 'grow', arguments: { target: `${PREFIX}one` } } as const;
  const socket = join(served.folder, 's');
  await t.rejects(ask(socket, grow, ASK_MS), { message: /enlarge the device/ });
  truncateSync(join(served.folder, 'one'), 64 * MIB);
  const { addedBytes } = (await ask(socket, grow, ASK_MS)) as { addedBytes: number };
  t.ok(addedBytes > 15 * MIB);
  for (const one of sessions) {
    const told = await one.execute({ cdb: TEST_UNIT_READY });
    t.equal(told.status, STATUS.CHECK_CONDITION);
    t.equal(senseTriple(told.sense), '06/2a/09', 'CAPACITY DATA HAS CHANGED');
    t.equal((await one.execute({ cdb: TEST_UNIT_READY })).status, STATUS.GOOD, 'once');
    t.equal(await capacity(one), before + addedBytes / session.blockBytes);
  }
  const last = (await capacity(session)) - 8;
  const data = Buffer.alloc(8 * session.blockBytes, 0x5a);
  t.equal((await session.execute({ cdb: write16(last, 8), write: data })).status, STATUS.GOOD);
  const back = await sessions[1].execute({ cdb: write16(last, 8, 0x88), read: data.length });
  t.ok(back.data.equals(data), 'the other initiator reads what was written there');
});
