/** Proves many backups: every one is looked at, and what is wrong with each is told. */
import { statSync } from 'node:fs';
import { OperationalError } from '../../operational-error.js';
import { isSystemError } from '../system-error.js';
import { backupsIn, chainOf, openBackup, verifyBackup } from './backup-file.js';
import type { BackupFile } from './backup-file.js';

export interface Proof {
  path: string;
  /** Undefined if not even its header is sound. */
  file?: BackupFile;
  /** Of the image, without zeros; undefined if it is not sound. */
  dataBytes?: number;
  /** Why it can't be restored; undefined: it is sound, and so is all that it builds on. */
  fault?: string;
}

/** The backups that files and folders name, each proved with what it builds on. */
export function prove(paths: readonly string[]): Proof[] {
  const proofs = paths.flatMap(backupsAt).map(proveAlone);
  const files = proofs.flatMap(({ file }) => file ?? []);
  const bad = new Set(proofs.filter(({ fault }) => fault !== undefined).map(({ path }) => path));
  return proofs.map((proof) => {
    if (proof.file === undefined || proof.fault !== undefined) return proof;
    const found = faultOf(() => chainOf(proof.file as BackupFile, files));
    if (typeof found === 'string') return { ...proof, fault: found };
    const broken = found.find(({ path }) => bad.has(path));
    return broken === undefined
      ? proof
      : { ...proof, fault: `${proof.path} builds on ${broken.path}, which is not sound` };
  });
}

function backupsAt(path: string): string[] {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [path];
  return backupsIn(path).sort();
}

function proveAlone(path: string): Proof {
  const file = faultOf(() => openBackup(path));
  if (typeof file === 'string') return { path, fault: file };
  const proved = faultOf(() => verifyBackup(file));
  return typeof proved === 'string' ? { path, file, fault: proved } : { path, file, ...proved };
}

/** What a look finds, or in words why it failed: damage, or a file or disc that can't be read. */
function faultOf<T extends object>(look: () => T): T | string {
  try {
    return look();
  } catch (error) {
    if (error instanceof OperationalError || isSystemError(error)) return error.message;
    throw error;
  }
}
