/**
 * What a partition may hold, block by block, seen from its initiators.
 *
 * A block is a list of versions, oldest first. The first one is durable as far as anybody was told; the last that was
 * acknowledged is what a read has to give, or one behind it whose end nobody saw. After a crash any of the list may be
 * there, but what was read once stays: recovery makes durable what it shows.
 */
import { ZERO } from './content.js';

interface Version {
  readonly sequence: number;
  /** The life of the daemon that it was issued in. */
  readonly era: number;
  acknowledged: boolean;
}

interface Block {
  versions: Version[];
  /** The daemon was killed since the block was last read or written. */
  unsettled: boolean;
}

const empty = (): Block => ({ versions: [{ sequence: ZERO, era: 0, acknowledged: true }], unsettled: false });

export class Model {
  readonly violations: string[] = [];
  generation = 0;
  /** Commands may fail. */
  discIsBad = false;
  #blocks: Block[] = [];
  #sequence = 0;
  /** Counts what makes older flushes meaningless. */
  #era = 0;
  #recording: Set<number>[] | undefined;
  #slave: Set<number>[] | undefined;

  grow(blocks: number): void {
    while (this.#blocks.length < blocks) this.#blocks.push(empty());
  }

  /** The life of the daemon: what was read in an earlier one says nothing any more. */
  get era(): number {
    return this.#era;
  }

  get blocks(): number {
    return this.#blocks.length;
  }

  /** Before a write (`zero`: an unmap) goes out. Answers the version, whose sequence the block is to carry. */
  issue(block: number, zero = false): Version {
    const version = { sequence: zero ? ZERO : ++this.#sequence, era: this.#era, acknowledged: false };
    this.#blocks[block].versions.push(version);
    this.#recording?.[block]?.add(version.sequence);
    return version;
  }

  /** The target said GOOD. What was acknowledged under FUA, older versions can't come after. */
  acknowledge(block: number, version: Version, durable: boolean): void {
    const one = this.#blocks[block];
    // A read after a crash, or a rollback, may have shown that it is not there.
    if (!one.versions.includes(version)) return;
    if (version.era === this.#era) {
      version.acknowledged = true;
      one.unsettled = false;
    } else if (!durable) return;
    if (durable) one.versions = one.versions.slice(one.versions.indexOf(version));
  }

  #current({ versions, unsettled }: Block): Version[] {
    return unsettled ? versions : versions.slice(versions.findLastIndex((one) => one.acknowledged));
  }

  /** A block was read, with nothing of its writer under way. */
  read(block: number, sequence: number | string, who: string): void {
    const one = this.#blocks[block];
    const current = this.#current(one);
    const found = current.findLast((version) => version.sequence === sequence);
    if (found === undefined) {
      const wanted = current.map((version) => version.sequence).join(' or ');
      this.violations.push(`${who}: block ${block} reads as ${sequence}, not ${wanted}`);
      return;
    }
    found.acknowledged = true;
    if (one.unsettled) one.versions = [found];
    else one.versions = one.versions.slice(0, one.versions.indexOf(found) + 1);
    one.unsettled = false;
  }

  /** Before a SYNCHRONIZE CACHE goes out; call the answer when it was GOOD. */
  beginFlush(): () => void {
    const era = this.#era;
    const covered = this.#blocks.map((one) => (one.unsettled ? undefined : this.#current(one)[0]));
    return () => {
      if (era !== this.#era) return;
      covered.forEach((version, block) => {
        const one = this.#blocks[block];
        const at = version === undefined ? -1 : one.versions.indexOf(version);
        if (at > 0) one.versions = one.versions.slice(at);
      });
    };
  }

  /** The daemon was killed: what was not flushed may be there or not. */
  crash(): void {
    this.#era++;
    for (const one of this.#blocks) one.unsettled = one.versions.length > 1 || one.unsettled;
  }

  // ---- the slave

  beginEnable(): void {
    this.#recording = this.#blocks.map((one) => new Set(this.#current(one).map(({ sequence }) => sequence)));
  }

  endEnable(enabled: boolean): void {
    if (enabled) {
      this.#slave = this.#recording;
      this.generation++;
    }
    this.#recording = undefined;
  }

  disable(): void {
    this.#slave = undefined;
  }

  get enabled(): boolean {
    return this.#slave !== undefined;
  }

  /** A block of the slave was read: from now on it is that, and nothing else. */
  readSlave(block: number, sequence: number | string): void {
    const set = this.#slave?.[block] ?? new Set([ZERO]);
    if (typeof sequence === 'number' && set.has(sequence)) this.#slave?.splice(block, 1, new Set([sequence]));
    else this.violations.push(`slave: block ${block} reads as ${sequence}, not ${[...set].join(' or ')}`);
  }

  /** The master is what the slave shows, durably. The whole slave has been read before. */
  rollback(): void {
    this.#era++;
    const slave = this.#slave ?? [];
    this.#blocks = this.#blocks.map((_, block) => {
      const [sequence = ZERO] = slave[block] ?? [];
      return { versions: [{ sequence, era: 0, acknowledged: true }], unsettled: false };
    });
  }
}
