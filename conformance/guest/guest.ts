/**
 * A real Linux host under qemu's software emulation, to which tests give shell commands one by one.
 *
 * The host's 127.0.0.1 is the guest's 10.0.2.2. Two serial ports: the first carries the kernel's console, kept for
 * failure messages, the second the agent (recipe.ts) over a unix socket.
 */
import fs from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Running } from '../support/processes.js';
import { guestImage } from './image.js';

export interface GuestOptions {
  /** For messages. */
  name: string;
  /** Written to initiatorname.iscsi; iscsid starts with it. */
  initiatorName: string;
  memoryMiB?: number;
  /** Files that are the guest's discs /dev/vda, /dev/vdb … once virtio_blk is loaded. */
  discs?: readonly string[];
  /** Instead of the usual one: boots the system on the first disc (system.ts). */
  initramfs?: string;
}

export interface GuestResult {
  /** Exit code of the script; 137 when its time was up. */
  code: number;
  stdout: string;
  stderr: string;
}

/** The address at which a guest reaches the host's loopback interface. */
export const HOST_ADDRESS = '10.0.2.2';

const BOOT_TIMEOUT_MS = 120_000;
/** With systemd and all that it starts, on a busy machine. */
const SYSTEM_BOOT_TIMEOUT_MS = 600_000;
/** Emulation may lag behind the guest's own clock; what a command may overrun its own limit by. */
const GRACE_MS = 15_000;

const KERNEL_ARGUMENTS = [
  'console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests no_timer_check tsc=reliable',
  'random.trust_cpu=on audit=0 8250.nr_uarts=2 raid=noautodetect ipv6.disable=1',
].join(' ');

export class Guest {
  readonly name: string;
  readonly #qemu: Running;
  readonly #folder: string;
  readonly #server: net.Server;
  readonly #socket: net.Socket;
  #received = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #nextId = 1;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(name: string, qemu: Running, folder: string, server: net.Server, socket: net.Socket) {
    this.name = name;
    this.#qemu = qemu;
    this.#folder = folder;
    this.#server = server;
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    // A guest that goes away shows as the end of the stream to whoever waits for an answer.
    socket.on('error', () => this.#wake?.());
    socket.on('close', () => this.#wake?.());
  }

  /** Boots a guest with iscsid running under the given initiator name. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const image = await guestImage();
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cldd-guest-'));
    const control = path.join(folder, 'control');
    const server = net.createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(control, resolve);
    });
    const connected = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    const qemu = new Running('qemu-system-x86_64', [
      ...['-machine', 'pc,accel=tcg', '-cpu', 'max', '-m', String(options.memoryMiB ?? 256)],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...[
        '-kernel',
        image.kernel,
        '-initrd',
        options.initramfs ?? image.initramfs,
        '-append',
        KERNEL_ARGUMENTS,
      ],
      ...['-serial', 'stdio', '-chardev', `socket,id=control,path=${control}`, '-serial', 'chardev:control'],
      ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
      ...(options.discs ?? []).flatMap((file) => [
        '-drive',
        `file=${file},format=raw,if=virtio,cache=unsafe`,
      ]),
    ]);
    const socket = await Promise.race([connected, qemu.ended.then(() => undefined)]);
    if (socket === undefined) {
      server.close();
      await fs.rm(folder, { recursive: true, force: true });
      throw new Error(`qemu did not start ${options.name}:\n${qemu.stdout}${qemu.stderr}`);
    }
    const guest = new Guest(options.name, qemu, folder, server, socket);
    try {
      const isSystem = options.initramfs !== undefined;
      const limitMs = isSystem ? SYSTEM_BOOT_TIMEOUT_MS : BOOT_TIMEOUT_MS;
      await guest.#line('boot', performance.now() + limitMs);
      await guest.succeed(`
        date -s @${Math.floor(Date.now() / 1000)} > /dev/null
        echo InitiatorName=${options.initiatorName} > /etc/iscsi/initiatorname.iscsi
        ${isSystem ? 'systemctl restart iscsid' : 'iscsid'}`);
    } catch (error) {
      await guest.stop();
      throw error;
    }
    return guest;
  }

  /** What the kernel said. */
  get console(): string {
    return this.#qemu.stdout;
  }

  /** Runs a shell script in the guest; several calls run one after the other. */
  run(script: string, options: { timeoutMs?: number } = {}): Promise<GuestResult> {
    const result = this.#queue.then(() => this.#execute(script, options.timeoutMs ?? 60_000));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Runs a script that has to end with code 0; answers what it printed. Its first failing command ends it. */
  async succeed(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(`set -e\n${script}`, options);
    if (code === 0) return stdout;
    throw new Error(
      `${this.name}: code ${code} from\n${script}\n${stdout}${stderr}\nKernel:\n${this.console.slice(-2000)}`,
    );
  }

  /** Runs the script until it succeeds, or throws what it last said when the time is up. */
  async until(script: string, timeoutMs: number): Promise<string> {
    const seconds = Math.ceil(timeoutMs / 1000);
    return await this.succeed(
      `n=0; until (${script}) > /run/until 2>&1; do n=$((n+1)); [ $n -lt ${seconds * 4} ] || { cat /run/until; exit 1; }; usleep 250000; done; cat /run/until`,
      { timeoutMs: timeoutMs + 5_000 },
    );
  }

  /** Cuts the guest's power. */
  async stop(): Promise<void> {
    this.#socket.destroy();
    this.#server.close();
    await this.#qemu.end('SIGKILL');
    await fs.rm(this.#folder, { recursive: true, force: true });
  }

  async #execute(script: string, timeoutMs: number): Promise<GuestResult> {
    const id = String(this.#nextId++);
    const deadline = performance.now() + timeoutMs + GRACE_MS;
    this.#socket.write(`${id} ${Math.ceil(timeoutMs / 1000)} ${Buffer.from(script).toString('base64')}\n`);
    const answer = await this.#line(script, deadline);
    const [answered, code, stdoutBytes, stderrBytes] = answer.split(' ');
    if (answered !== id) throw new Error(`${this.name}: "${answer}" does not answer command ${id}`);
    const stdout = await this.#take(Number(stdoutBytes), script, deadline);
    const stderr = await this.#take(Number(stderrBytes), script, deadline);
    return { code: Number(code), stdout: stdout.toString('utf8'), stderr: stderr.toString('utf8') };
  }

  async #line(what: string, deadline: number): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf(0x0a);
      if (end !== -1) return (await this.#take(end + 1, what, deadline)).toString('latin1').trim();
      await this.#more(what, deadline);
    }
  }

  async #take(length: number, what: string, deadline: number): Promise<Buffer> {
    while (this.#received.length < length) await this.#more(what, deadline);
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  async #more(what: string, deadline: number): Promise<void> {
    const leftMs = deadline - performance.now();
    if (this.#socket.destroyed || leftMs <= 0) {
      const why = leftMs <= 0 ? 'no answer in time' : 'the guest is gone';
      throw new Error(
        `${this.name}: ${why} to\n${what}\nKernel:\n${this.console.slice(-2000)}${this.#qemu.stderr}`,
      );
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, leftMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}
