/** `node dist/packaging/manual/main.js [FOLDER]`: writes the manual pages, into dist/man unless told otherwise. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { manualPages } from './pages.js';

const folder = process.argv.at(2) ?? join(PACKAGE_ROOT, 'dist', 'man');
mkdirSync(folder, { recursive: true });
for (const { file, roff } of await manualPages()) writeFileSync(join(folder, file), roff);
