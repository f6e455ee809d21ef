/**
 * Atomic writes of more than one 4 KiB block (SBC-5 §4.28). A block that the slave no longer shares is overwritten in
 * place, so several blocks would be old and new after a power cut. Hence the data goes to the state store first; a
 * restart finds it there and writes it again. It is removed, durably, before the command ends: later it would undo what
 * was written since.
 *
 *     0   position u64, in bytes
 *     8   the data
 */
import { getU64, putU64 } from './bytes.js';
import { MEDIUM } from './medium.js';
import type { Medium, MediumDone, MediumResult, StateStore } from './medium.js';
import type { LogicalUnit, ScsiLog } from './unit.js';

const KEY = 'scsi.atomic';
const HEADER_BYTES = 8;

interface Write {
  position: number;
  data: Buffer;
  done: MediumDone;
}

export class AtomicLog {
  /** An interrupted write is being written again: the medium can't be used yet. */
  replaying = false;
  private readonly waiting: Write[] = [];
  private busy = false;
  private readonly medium: Medium;
  private readonly state: StateStore;
  private readonly log: ScsiLog;

  constructor(medium: Medium, state: StateStore, log: ScsiLog) {
    this.medium = medium;
    this.state = state;
    this.log = log;
  }

  /** Finishes what a power cut or a crash interrupted; `then` is called when nothing of it is left to write. */
  resume(unit: LogicalUnit, then: () => void): void {
    const record = this.state.load(KEY);
    if (record === undefined || record.length <= HEADER_BYTES) {
      then();
      return;
    }
    const position = getU64(record, 0);
    const data = record.subarray(HEADER_BYTES);
    this.log.warn({ position, bytes: data.length }, 'an atomic write was interrupted and is done again');
    this.replaying = true;
    unit.refresh();
    this.busy = true;
    this.put(position, data, (result) => {
      if (result !== MEDIUM.OK)
        this.log.error({ position, result }, 'the atomic write could not be done again');
      this.replaying = false;
      unit.refresh();
      then();
      this.next();
    });
  }

  /** Writes all of `data` or, if power fails or an error is reported, perhaps nothing; durable when done. */
  write(position: number, data: Buffer, done: MediumDone): void {
    this.waiting.push({ position, data, done });
    if (!this.busy) this.next();
  }

  private next(): void {
    const write = this.waiting.shift();
    this.busy = write !== undefined;
    if (write === undefined) return;
    const { position, data } = write;
    const record = Buffer.alloc(HEADER_BYTES + data.length);
    putU64(record, 0, position);
    data.copy(record, HEADER_BYTES);
    const end = (result: MediumResult): void => {
      this.next();
      write.done(result);
    };
    this.state.save(KEY, record, (error) => {
      if (error === undefined) this.put(position, data, end);
      else {
        this.log.error({ err: error, position }, 'an atomic write could not be recorded: not begun');
        this.forget(() => end(MEDIUM.FAILED));
      }
    });
  }

  /** In place, durably; then the record goes. */
  private put(position: number, data: Buffer, done: MediumDone): void {
    this.medium.writeAsync(position, data, 0, data.length, (written) => {
      if (written !== MEDIUM.OK) {
        // The record stays: what is there in part is completed by the next start.
        done(written);
        return;
      }
      this.medium.flush((flushed) => {
        if (flushed === MEDIUM.OK)
          this.forget((error) => done(error === undefined ? MEDIUM.OK : MEDIUM.FAILED));
        else done(flushed);
      });
    });
  }

  private forget(done: (error?: Error) => void): void {
    this.state.save(KEY, undefined, (error) => {
      if (error !== undefined)
        this.log.error({ err: error }, 'the record of an atomic write stays: a restart would do it again');
      done(error);
    });
  }
}
