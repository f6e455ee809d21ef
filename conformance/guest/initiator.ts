/** open-iscsi in a guest, pointed at one target. */
import { type Guest, HOST_ADDRESS } from './guest.js';

export class Initiator {
  readonly #guest: Guest;
  readonly #portal: string;
  readonly #target: string;

  constructor(guest: Guest, cldd: { target: string; port: number }) {
    this.#guest = guest;
    this.#portal = `${HOST_ADDRESS}:${cldd.port}`;
    this.#target = cldd.target;
  }

  /** SendTargets discovery; answers "HOST:PORT,TAG NAME" lines and leaves the node records behind. */
  async discover(): Promise<string> {
    return await this.#guest.succeed(`iscsiadm -m discovery -t sendtargets -p ${this.#portal}`);
  }

  async login(): Promise<void> {
    await this.#guest.succeed(`iscsiadm -m node -T ${this.#target} -p ${this.#portal} --login`);
  }

  async logout(): Promise<void> {
    await this.#guest.succeed(`iscsiadm -m node -T ${this.#target} -p ${this.#portal} --logout`);
  }

  /** The disk that Linux made of a LUN, such as /dev/sda; waits until it is there. */
  async disk(lun: number): Promise<string> {
    const found = await this.#guest.until(`ls -d /sys/class/scsi_disk/*:${lun}/device/block/*`, 20_000);
    return `/dev/${found.trim().split('/').at(-1) ?? ''}`;
  }
}
