/** See discovery.ts. */
import t from 'tap';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';
import { discovery } from './discovery.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(discovery, target);
