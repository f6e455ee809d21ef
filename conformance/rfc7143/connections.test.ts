/** See connections.ts. */
import t from 'tap';
import { connections } from './connections.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(connections, target);
