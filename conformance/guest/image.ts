/** Builds the guest's image once and keeps it in .cache/guest, named by a hash of what went in. */
import crypto from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';
import { CACHE, findProgram } from '../support/paths.js';
import { succeed } from '../support/processes.js';
import { CpioArchive } from './cpio.js';
import { fetchKernel, unpackPackage, withDependencies } from './kernel.js';
import * as recipe from './recipe.js';

export interface GuestImage {
  kernel: string;
  initramfs: string;
}

let image: Promise<GuestImage> | undefined;

/** The image, from the cache or made now (a download of some 70 MB). */
export function guestImage(): Promise<GuestImage> {
  image ??= makeImage();
  return image;
}

async function makeImage(): Promise<GuestImage> {
  const programs = await hostPrograms();
  const hash = crypto.createHash('sha256').update(JSON.stringify({ ...recipe }));
  for (const file of programs) {
    const { size, mtimeMs } = await fs.stat(file);
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  const folder = path.join(CACHE, 'guest', hash.digest('hex').slice(0, 16));
  const made = { kernel: path.join(folder, 'vmlinux'), initramfs: path.join(folder, 'initramfs') };
  if (await exists(made.initramfs)) return made;

  const work = `${folder}.${process.pid}`;
  await fs.rm(work, { recursive: true, force: true });
  try {
    await build(work, programs);
    await fs.rm(path.join(work, 'unpacked'), { recursive: true, force: true });
    await fs.rename(work, folder).catch(async (error: unknown) => {
      // Another test process was faster.
      if (!(await exists(made.initramfs))) throw error;
    });
  } finally {
    await fs.rm(work, { recursive: true, force: true });
  }
  return made;
}

async function build(folder: string, programs: string[]): Promise<void> {
  const unpacked = path.join(folder, 'unpacked');
  const kernel = await fetchKernel(path.join(unpacked, 'kernel'));
  const archive = new CpioArchive();
  for (const name of ['dev', 'proc', 'sys', 'run', 'mnt', 'tmp', 'etc', 'var/lib/iscsi'])
    archive.folder(name);
  archive.characterDevice('dev/console', 5, 1);
  archive.file('init', recipe.INIT, true);
  archive.file('agent', recipe.AGENT, true);
  archive.file('etc/iscsi/iscsid.conf', recipe.ISCSID_CONF);
  archive.file('etc/passwd', 'root:x:0:0:root:/:/bin/sh\n');
  archive.file('etc/mtab', '');

  const boot = await withDependencies(kernel, recipe.BOOT_MODULES);
  const all = await withDependencies(kernel, [...recipe.BOOT_MODULES, ...recipe.EXTRA_MODULES]);
  for (const name of all)
    archive.file(`modules/${name}.ko`, await fs.readFile(kernel.modules.get(name) ?? ''));
  archive.file('modules/boot', `${boot.join('\n')}\n`);
  archive.file('modules/all', `${all.join('\n')}\n`);

  const extra: string[] = [];
  for (const entry of recipe.UNPACKED_PACKAGES) {
    const root = await unpackPackage(entry.package, path.join(unpacked, entry.package));
    const files = await fs.readdir(root, { recursive: true });
    for (const program of entry.programs) {
      const file = files.find((name) => name.endsWith(`bin/${program}`));
      if (file === undefined) throw new Error(`${entry.package} holds no ${program}`);
      extra.push(path.join(root, file));
    }
  }
  await addPrograms(archive, [...programs, ...extra]);
  await fs.writeFile(path.join(folder, 'vmlinux'), kernel.vmlinux);
  await fs.writeFile(path.join(folder, 'initramfs'), archive.finish());
}

/** Programs at /bin (/sbin is the same folder), libraries where the dynamic linker looks, busybox for the rest. */
async function addPrograms(archive: CpioArchive, programs: readonly string[]): Promise<void> {
  const taken = new Set<string>();
  for (const file of programs) {
    taken.add(path.basename(file));
    archive.file(`bin/${path.basename(file)}`, await fs.readFile(file), true);
  }
  archive.link('sbin', 'bin');
  for (const name of ['mkfs.ext2', 'mkfs.ext4']) {
    taken.add(name);
    archive.link(`bin/${name}`, 'mke2fs');
  }
  const busybox = programs.find((file) => path.basename(file) === recipe.BUSYBOX) ?? '';
  for (const applet of (await succeed(busybox, ['--list'])).split('\n')) {
    if (applet !== '' && !taken.has(applet)) archive.link(`bin/${applet}`, 'busybox');
  }
  const dynamic = programs.filter((file) => file !== busybox);
  const libraries = new Set((await succeed('ldd', dynamic)).match(/\/\S+\.so\S*(?= \()/g) ?? []);
  for (const library of libraries) {
    archive.file(library.replace(/^\/(usr\/)?/, ''), await fs.readFile(library), true);
  }
}

/** Full paths of the programs that the recipe takes from this host. */
async function hostPrograms(): Promise<string[]> {
  const busybox = findProgram(recipe.BUSYBOX);
  if (busybox === undefined) throw new Error('busybox is missing (Debian package busybox-static)');
  const names = new Set(recipe.PROGRAMS);
  const sg = findProgram(`${recipe.PROGRAM_PREFIX}inq`);
  if (sg === undefined) throw new Error('sg_inq is missing (Debian package sg3-utils)');
  for (const name of await fs.readdir(path.dirname(sg))) {
    if (name.startsWith(recipe.PROGRAM_PREFIX)) names.add(name);
  }
  const files = [...names].map((name) => {
    const file = findProgram(name);
    if (file === undefined) throw new Error(`${name} is missing (see scripts/debian.mjs for its package)`);
    return file;
  });
  return [busybox, ...files];
}

async function exists(file: string): Promise<boolean> {
  return await fs.access(file).then(
    () => true,
    () => false,
  );
}
