/**
 * Loaded before a program (`node --import`), a file system as FAT and exFAT are: link(2) and chmod(2) are refused with
 * EPERM. There all files have one mode, and a file has one name.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

function refused(syscall: string): () => never {
  return () => {
    throw Object.assign(new Error(`EPERM: operation not permitted, ${syscall}`), { code: 'EPERM', syscall });
  };
}

Object.assign(fs, { linkSync: refused('link'), chmodSync: refused('chmod') });
syncBuiltinESMExports();
