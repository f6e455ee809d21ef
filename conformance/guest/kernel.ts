/** Debian's kernel, downloaded and unpacked but not installed. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { run, succeed } from '../support/processes.js';
import { KERNEL_META_PACKAGE } from './recipe.js';

export interface Kernel {
  /** Uncompressed ELF image: emulation boots it by its PVH entry and saves seconds of decompression. */
  vmlinux: Buffer;
  /** Path of each module's file by the module's name (underscores, no suffix). */
  modules: Map<string, string>;
}

/** Downloads a package's file into a folder and unpacks it into `folder/root`; answers that root. */
export async function unpackPackage(name: string, folder: string): Promise<string> {
  await fs.mkdir(folder, { recursive: true });
  await succeed('apt-get', ['download', '-q', name], { cwd: folder, timeoutMs: 240_000 });
  const file = (await fs.readdir(folder)).find(
    (entry) => entry.startsWith(`${name}_`) && entry.endsWith('.deb'),
  );
  if (file === undefined) throw new Error(`apt-get download ${name} left no file`);
  const root = path.join(folder, 'root');
  await succeed('dpkg', ['-x', path.join(folder, file), root], { timeoutMs: 120_000 });
  await fs.rm(path.join(folder, file));
  return root;
}

/** Fetches the current kernel into `folder`. */
export async function fetchKernel(folder: string): Promise<Kernel> {
  const name = await kernelPackage();
  const root = await unpackPackage(name, folder);
  const boot = path.join(root, 'boot');
  const image = (await fs.readdir(boot)).find((entry) => entry.startsWith('vmlinuz'));
  if (image === undefined) throw new Error(`${name} holds no kernel`);
  const modules = new Map<string, string>();
  for (const entry of await fs.readdir(root, { recursive: true })) {
    const base = path.basename(entry);
    if (base.endsWith('.ko')) modules.set(base.slice(0, -3).replaceAll('-', '_'), path.join(root, entry));
  }
  return { vmlinux: await decompress(path.join(boot, image), folder), modules };
}

/** The modules and everything that they depend on, each after what it needs. */
export async function withDependencies(kernel: Kernel, names: readonly string[]): Promise<string[]> {
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const file = kernel.modules.get(name);
    // Not a file: built into the kernel.
    if (file === undefined || order.includes(name)) return;
    for (const needed of dependencies(await fs.readFile(file))) await visit(needed);
    if (!order.includes(name)) order.push(name);
  };
  for (const name of names) await visit(name);
  return order;
}

/** What a module's .modinfo section names in "depends=" (a list) and "softdep=pre:". */
function dependencies(module: Buffer): string[] {
  const text = module.toString('latin1');
  const hard = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? '';
  const soft = /\0softdep=pre: ([^\0]*)\0/.exec(text)?.[1] ?? '';
  return [...hard.split(','), ...soft.split(' ')]
    .filter((name) => name !== '')
    .map((name) => name.replaceAll('-', '_'));
}

async function kernelPackage(): Promise<string> {
  let listed = await run('apt-cache', ['depends', KERNEL_META_PACKAGE]);
  if (!listed.stdout.includes('Depends:')) {
    await succeed('apt-get', ['update', '-q'], { timeoutMs: 240_000 });
    listed = await run('apt-cache', ['depends', KERNEL_META_PACKAGE]);
  }
  const name = /Depends: (linux-image-\S+)/.exec(listed.stdout)?.[1];
  if (name === undefined) throw new Error(`${KERNEL_META_PACKAGE} is not in apt's lists`);
  return name;
}

/**
 * The payload of a bzImage (Documentation/x86/boot: setup_sects at 1F1h, payload_offset at 248h, payload_length at
 * 24Ch); its last four bytes are the unpacked length, which xz would take for garbage.
 */
async function decompress(bzImage: string, folder: string): Promise<Buffer> {
  const image = await fs.readFile(bzImage);
  const start = (image.readUInt8(0x1f1) + 1) * 512 + image.readUInt32LE(0x248);
  const packed = path.join(folder, 'vmlinux.xz');
  await fs.writeFile(packed, image.subarray(start, start + image.readUInt32LE(0x24c) - 4));
  await succeed('xz', ['--decompress', '--force', packed]);
  return await fs.readFile(path.join(folder, 'vmlinux'));
}
