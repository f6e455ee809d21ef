/** qemu's own iSCSI initiator: whole images by qemu-img, single writes by qemu-io. */
import fs from 'node:fs/promises';
import { Running, succeed } from '../support/processes.js';
import { qemuIoCommand, type Write } from './model.js';

/** Reads a whole logical unit. */
export async function readUnit(url: string, scratch: string): Promise<Buffer> {
  await succeed('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', url, scratch]);
  return await fs.readFile(scratch);
}

/** Overwrites a logical unit with an image of its size. */
export async function writeUnit(url: string, image: Buffer, scratch: string): Promise<void> {
  await fs.writeFile(scratch, image);
  await succeed('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', scratch, url]);
}

/** qemu-io doing the writes one after the other, each begun when the one before it is acknowledged. */
export class Writer {
  readonly #running: Running;

  constructor(url: string, writes: readonly Write[], options: { flush: boolean }) {
    const commands = writes.flatMap((write) => [
      ...['-c', qemuIoCommand(write)],
      ...(options.flush ? ['-c', 'flush'] : []),
    ]);
    // Line by line, so that what is printed tells what has been acknowledged.
    const open = ['-oL', 'qemu-io', '-f', 'raw', '-d', 'unmap', ...commands, url];
    this.#running = new Running('stdbuf', open);
  }

  /** Writes acknowledged so far. */
  get acknowledged(): number {
    return this.#running.stdout.match(/^wrote \d+\/\d+ bytes/gm)?.length ?? 0;
  }

  get alive(): boolean {
    return this.#running.alive;
  }

  /** Resolves when that many writes have been acknowledged. */
  async reach(count: number): Promise<void> {
    const reached = (): number | undefined => (this.acknowledged >= count ? count : undefined);
    await this.#running.waitUntil(reached, `${count} writes`, 120_000);
  }

  /** Waits for the end of all writes; throws if one failed. */
  async finish(): Promise<void> {
    const { code } = await this.#running.ended;
    if (code !== 0)
      throw new Error(`qemu-io ended with ${String(code)}:\n${this.#running.stdout}${this.#running.stderr}`);
  }

  async kill(): Promise<void> {
    await this.#running.end('SIGKILL');
  }
}
