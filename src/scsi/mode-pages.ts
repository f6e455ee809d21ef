/**
 * Mode parameters of a logical unit (SPC-6 §7.5, SBC-5 §6.5): current, changeable, default and saved values, and what
 * the rest of the SCSI layer reads of them.
 */
import assert from 'node:assert/strict';
import type { StateStore } from './medium.js';
import type { ScsiLog } from './unit.js';

/** PAGE CONTROL of MODE SENSE (SPC-6 §6.14.3). */
export const PAGE_CONTROL = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;

interface PageDefinition {
  page: number;
  subpage: number;
  name: string;
  /** The page with its header, as hexadecimal. */
  defaults: string;
  /** Bits that MODE SELECT may change, from byte 0 on; shorter means zeros. */
  changeable: string;
}

/** PS is set in byte 0 when pages are sent, since all of them can be saved. */
const PAGES: readonly PageDefinition[] = [
  // AWRE, ARRE: bad blocks are the partition's device's affair, handled below us.
  {
    page: 0x01,
    subpage: 0,
    name: 'Read-Write Error Recovery',
    defaults: '010a c00000000000000000 00',
    changeable: '',
  },
  {
    page: 0x02,
    subpage: 0,
    name: 'Disconnect-Reconnect',
    defaults: '020e 0000000000000000000000000000',
    changeable: '',
  },
  {
    page: 0x08,
    subpage: 0,
    name: 'Caching',
    defaults: '0812 04000000000000000000000000000000 0000',
    changeable: '0000 04',
  },
  // GLTSD=1; QUEUE ALGORITHM MODIFIER 1h; BUSY TIMEOUT unlimited; changeable: D_SENSE and SWP.
  {
    page: 0x0a,
    subpage: 0,
    name: 'Control',
    defaults: '0a0a 0210000000 00ffff0000',
    changeable: '0000 04000800000000000000',
  },
  {
    page: 0x0a,
    subpage: 1,
    name: 'Control Extension',
    defaults: '4a01001c 00000000 000000000000000000000000000000000000000000000000',
    changeable: '',
  },
  {
    page: 0x1a,
    subpage: 0,
    name: 'Power Condition',
    defaults: '1a26 0000000000000000000000000000000000000000000000000000000000000000000000000000',
    changeable: '',
  },
  {
    page: 0x1c,
    subpage: 0,
    name: 'Informational Exceptions Control',
    defaults: '1c0a 00000000000000000000',
    changeable: '',
  },
];

const SPF = 0x40;
const PS = 0x80;
/** The two pages that something here obeys, and their bits for that (SBC-5 §6.5.6, SPC-6 §7.5). */
const CACHING = 0x08;
const CONTROL = 0x0a;
const WCE = 0x04;
const D_SENSE = 0x04;
const SWP = 0x08;

interface Page {
  readonly definition: PageDefinition;
  readonly defaults: Buffer;
  readonly changeable: Buffer;
  current: Buffer;
  saved: Buffer;
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

/** One page of a MODE SELECT parameter list, checked but not yet in force. */
export interface PageChange {
  readonly entry: Page;
  readonly value: Buffer;
}

export class ModePages {
  /** WCE: writes are acknowledged before they are durable. */
  writeCacheEnabled = true;
  /** SWP: the initiators asked for write protection. */
  softwareWriteProtect = false;
  /** D_SENSE: sense data in descriptor format. */
  descriptorSense = false;
  private readonly pages: Page[];
  private readonly key: string;
  private readonly state: StateStore;

  constructor(kind: 'master' | 'slave', state: StateStore, log: ScsiLog) {
    this.key = `scsi.mode.${kind}`;
    this.state = state;
    this.pages = PAGES.map((definition) => {
      const defaults = hex(definition.defaults);
      const changeable = Buffer.alloc(defaults.length);
      hex(definition.changeable).copy(changeable);
      return { definition, defaults, changeable, current: defaults, saved: defaults };
    });
    this.restore(log);
    this.apply();
  }

  /** Pages in the order of MODE SENSE; `page` 3Fh and `subpage` FFh are wildcards (SPC-6 §6.14.1). */
  find(page: number, subpage: number, control: number = PAGE_CONTROL.CURRENT): Buffer[] | undefined {
    const found = this.pages.filter(
      ({ definition }) =>
        (page === 0x3f || definition.page === page) && (subpage === 0xff || definition.subpage === subpage),
    );
    if (found.length === 0) return undefined;
    return found.map((entry) => sent(entry, control));
  }

  /**
   * Checks one page of a parameter list. Returns the offset of the byte at fault, or the change. A bit that is not
   * changeable must have its current value (SPC-6 §6.11).
   */
  check(value: Buffer): PageChange | number {
    const subpageFormat = (value[0] & SPF) !== 0;
    const page = value[0] & 0x3f;
    const subpage = subpageFormat ? value[1] : 0;
    const entry = this.entry(page, subpage);
    if (entry === undefined) return 0;
    if (value.length !== entry.current.length) return 1;
    for (let i = subpageFormat ? 4 : 2; i < value.length; i++) {
      if (((value[i] ^ entry.current[i]) & ~entry.changeable[i]) !== 0) return i;
    }
    return { entry, value };
  }

  /** Puts checked changes into force. True if any value became another one. */
  change(changes: readonly PageChange[]): boolean {
    let changed = false;
    for (const { entry, value } of changes) {
      const next = Buffer.from(value);
      next[0] &= ~PS;
      changed ||= !next.equals(entry.current);
      entry.current = next;
    }
    this.apply();
    return changed;
  }

  /** Saves the current values of those pages; they are in force after a restart and a reset. */
  save(changes: readonly PageChange[], done: (error?: Error) => void): void {
    for (const { entry } of changes) entry.saved = entry.current;
    this.state.save(this.key, Buffer.concat(this.pages.map((entry) => entry.saved)), done);
  }

  /** After a reset the saved values are current (SPC-6 §5.8). */
  reset(): void {
    for (const entry of this.pages) entry.current = entry.saved;
    this.apply();
  }

  private apply(): void {
    const [caching, control] = [this.current(CACHING), this.current(CONTROL)];
    this.writeCacheEnabled = (caching[2] & WCE) !== 0;
    this.descriptorSense = (control[2] & D_SENSE) !== 0;
    this.softwareWriteProtect = (control[4] & SWP) !== 0;
  }

  private current(page: number): Buffer {
    const entry = this.entry(page, 0);
    assert(entry !== undefined, 'the table has no such page');
    return entry.current;
  }

  private entry(page: number, subpage: number): Page | undefined {
    return this.pages.find(({ definition }) => definition.page === page && definition.subpage === subpage);
  }

  private restore(log: ScsiLog): void {
    const record = this.state.load(this.key);
    if (record === undefined) return;
    let at = 0;
    for (const entry of this.pages) {
      const value = record.subarray(at, at + entry.defaults.length);
      at += entry.defaults.length;
      const change = this.check(value);
      if (typeof change === 'number') {
        log.warn(
          { record: this.key, page: entry.definition.page },
          'saved mode page does not fit this version: default used',
        );
        continue;
      }
      entry.saved = Buffer.from(value);
      entry.current = entry.saved;
    }
  }
}

function sent(entry: Page, control: number): Buffer {
  const value = Buffer.from(
    control === PAGE_CONTROL.CHANGEABLE
      ? entry.changeable
      : control === PAGE_CONTROL.DEFAULT
        ? entry.defaults
        : control === PAGE_CONTROL.SAVED
          ? entry.saved
          : entry.current,
  );
  // The header is the same in all four kinds; only the parameters differ.
  entry.defaults.copy(value, 0, 0, entry.definition.subpage === 0 ? 2 : 4);
  value[0] |= PS;
  return value;
}
