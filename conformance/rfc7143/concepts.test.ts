/** See concepts.ts. */
import t from 'tap';
import { concepts } from './concepts.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(concepts, target);
