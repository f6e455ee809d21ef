/** See write.ts. */
import t from 'tap';
import { write } from './write.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(write, target);
