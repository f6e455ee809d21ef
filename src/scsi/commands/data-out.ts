/** Receiving a parameter list, or other Data-Out that a command needs as a whole. */
import { fail } from '../respond.js';
import { SENSE } from '../sense.js';
import type { DataOutHandler, Task } from '../task.js';

interface Waiting {
  data: Buffer;
  then: (data: Buffer) => void;
}

const WHOLE: DataOutHandler = {
  onDataOut(task, buffer, offset, length) {
    const waiting = task.scratch as Waiting;
    waiting.data = Buffer.from(buffer.subarray(offset, offset + length));
  },
  onDataOutEnd(task) {
    const waiting = task.scratch as Waiting;
    task.scratch = undefined;
    waiting.then(waiting.data);
  },
};

const NOTHING = Buffer.alloc(0);

/** Receives up to `bytes` and calls `then` with what came, perhaps before this returns. */
export function receiveAll(task: Task, bytes: number, then: (data: Buffer) => void): void {
  task.scratch = { data: NOTHING, then } satisfies Waiting;
  task.handler = WHOLE;
  task.receiveDataOut(bytes, true);
}

/** As `receiveAll`, but the initiator must announce exactly that much, since a part would be carried out wrongly. */
export function receiveExactly(task: Task, bytes: number, then: (data: Buffer) => void): void {
  if (task.expectedDataOut !== bytes) {
    fail(task, SENSE.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
    return;
  }
  receiveAll(task, bytes, (data) => {
    if (data.length === bytes) then(data);
    else fail(task, SENSE.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
  });
}
