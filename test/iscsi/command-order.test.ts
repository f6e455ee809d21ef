/** Commands that wait for their turn, and the data that came with them. */
import t from 'tap';
import { CommandOrder, type Carrier } from '../../src/iscsi/command-order.js';
import { DEFAULT_LIMITS } from '../../src/iscsi/options.js';
import { Negotiation } from '../../src/iscsi/negotiation.js';
import type { Pdu } from '../../src/iscsi/pdu.js';

const SCSI_COMMAND = 0x01;
const DATA_OUT = 0x05;
const NO_TAG = 0xffffffff;
const MIB = 1_048_576;

function pdu(opcode: number, fields: { itt: number; cmdSN?: number; dataBytes?: number }): Pdu {
  const dataBytes = fields.dataBytes ?? 0;
  const buffer = Buffer.alloc(48 + dataBytes);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  buffer[0] = opcode;
  view.setUint32(16, fields.itt);
  view.setUint32(20, NO_TAG);
  view.setUint32(24, fields.cmdSN ?? 0);
  return { buffer, view, at: 0, ahsAt: 48, ahsBytes: 0, dataAt: 48, dataBytes };
}

/** A session of which command 1 has not come, and the connection that everything else comes by. */
function ordered(): { order: CommandOrder; carrier: Carrier; pinned: () => number; delivered: Pdu[] } {
  const delivered: Pdu[] = [];
  let pinned = 0;
  const carrier: Carrier = {
    parameters: { ...new Negotiation(DEFAULT_LIMITS).parameters(), firstBurstBytes: 262_144 },
    pin: (bytes) => void (pinned += bytes),
    deliver: (one) => void delivered.push(one),
  };
  const session = { expCmdSN: 1, inWindow: () => true };
  return { order: new CommandOrder(session), carrier, pinned: () => pinned, delivered };
}

void t.test('what waits is delivered in its turn, data behind their command', (t) => {
  const { order, carrier, pinned, delivered } = ordered();
  t.notOk(order.admit(pdu(SCSI_COMMAND, { itt: 7, cmdSN: 2 }), carrier));
  t.ok(order.dataOut(pdu(DATA_OUT, { itt: 7, dataBytes: 512 }), carrier));
  t.notOk(order.dataOut(pdu(DATA_OUT, { itt: 8 }), carrier), 'of no command that waits');
  t.ok(order.admit(pdu(SCSI_COMMAND, { itt: 6, cmdSN: 1 }), carrier));
  while (order.deliverNext());
  t.same(
    delivered.map(({ buffer }) => buffer[0]),
    [SCSI_COMMAND, DATA_OUT],
  );
  t.equal(pinned(), 0);
  t.end();
});

void t.test('data that wait are bounded by what they cost, for one command and for all', (t) => {
  const { order, carrier, pinned } = ordered();
  const { firstBurstBytes } = carrier.parameters;
  let before = 0;
  for (let cmdSN = 2; cmdSN < 130; cmdSN++) {
    order.admit(pdu(SCSI_COMMAND, { itt: cmdSN, cmdSN }), carrier);
    for (let count = 0; count < 1300; count++) order.dataOut(pdu(DATA_OUT, { itt: cmdSN }), carrier);
    // An empty PDU is no cheaper than the objects that hold it.
    t.ok(pinned() - before <= 2 * firstBurstBytes + 65_536 + 48);
    before = pinned();
  }
  t.ok(pinned() > 30 * MIB && pinned() <= 33 * MIB, `${pinned()} bytes`);
  order.drop(carrier);
  t.equal(pinned(), 0);
  t.notOk(order.waiting);
  t.end();
});
