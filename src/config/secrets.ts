/** CHAP secrets: each in a file that only its owner can read, or a credential that systemd hands the service. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** RFC 7143 §9.2.1: at least 96 bits; the rest bounds what is read. */
export const SECRET_BYTES_MIN = 12;
export const SECRET_BYTES_MAX = 255;

/** The file of a credential (LoadCredential=, SetCredentialEncrypted= of systemd), or why there is none. */
export function credentialFile(name: string): string | { mistake: string } {
  const folder = process.env['CREDENTIALS_DIRECTORY'];
  if (folder === undefined || folder === '')
    return {
      mistake: `systemd gives this process no credentials: add LoadCredential=${name}:/path to its unit, or use secretFile`,
    };
  return join(folder, name);
}

/** The first line of the file, or what is wrong with it. The mistake never quotes the content. */
export function readSecret(
  file: string,
  from: 'owner' | 'systemd' = 'owner',
): { secret: Buffer } | { mistake: string } {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (error) {
    const { code = 'error' } = error as NodeJS.ErrnoException;
    return { mistake: `can't read the secret file ${file} (${code})` };
  }
  try {
    const info = fstatSync(fd);
    if (!info.isFile()) return { mistake: `${file} is not a file` };
    // systemd lets the service's user in by an access list, which shows as the group's right to read.
    if ((info.mode & (from === 'systemd' ? 0o037 : 0o077)) !== 0) {
      const mode = (info.mode & 0o777).toString(8).padStart(4, '0');
      return { mistake: `${file} has mode ${mode}: others could read the secret; run chmod 0600 ${file}` };
    }
    const bytes = Buffer.alloc(SECRET_BYTES_MAX + 3);
    const text = bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)).toString('latin1');
    const secret = Buffer.from(text.split(/\r?\n/, 1)[0], 'latin1');
    if (secret.length < SECRET_BYTES_MIN || secret.length > SECRET_BYTES_MAX)
      return { mistake: `the secret in ${file} must have ${SECRET_BYTES_MIN} to ${SECRET_BYTES_MAX} bytes` };
    return { secret };
  } finally {
    closeSync(fd);
  }
}
