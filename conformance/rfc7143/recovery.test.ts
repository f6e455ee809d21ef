/** See recovery.ts. */
import t from 'tap';
import { recovery } from './recovery.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(recovery, target);
