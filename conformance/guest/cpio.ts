/** Writes the "newc" cpio archives that Linux unpacks as its initramfs (Documentation/driver-api/early-userspace). */

const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

/** Collects entries; folders that an entry lies in are added by themselves. */
export class CpioArchive {
  readonly #parts: Buffer[] = [];
  readonly #folders = new Set<string>();
  #inode = 1;

  folder(name: string): void {
    const parent = name.slice(0, Math.max(0, name.lastIndexOf('/')));
    if (parent !== '') this.folder(parent);
    if (this.#folders.has(name)) return;
    this.#folders.add(name);
    this.#entry(name, S_IFDIR | 0o755, Buffer.alloc(0));
  }

  file(name: string, content: Buffer | string, executable = false): void {
    this.#within(name);
    this.#entry(name, S_IFREG | (executable ? 0o755 : 0o644), Buffer.from(content));
  }

  link(name: string, target: string): void {
    this.#within(name);
    this.#entry(name, S_IFLNK | 0o777, Buffer.from(target));
  }

  characterDevice(name: string, major: number, minor: number): void {
    this.#within(name);
    this.#entry(name, S_IFCHR | 0o600, Buffer.alloc(0), major, minor);
  }

  finish(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #within(name: string): void {
    if (name.includes('/')) this.folder(name.slice(0, name.lastIndexOf('/')));
  }

  /** Header: magic and 13 numbers of eight hexadecimal digits; name and data are each padded to four bytes. */
  #entry(name: string, mode: number, data: Buffer, major = 0, minor = 0): void {
    const nameBytes = Buffer.from(`${name}\0`);
    const numbers = [this.#inode++, mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, nameBytes.length, 0];
    const header = Buffer.from(
      `070701${numbers.map((value) => value.toString(16).padStart(8, '0')).join('')}`,
    );
    this.#parts.push(
      header,
      nameBytes,
      padding(header.length + nameBytes.length),
      data,
      padding(data.length),
    );
  }
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}
