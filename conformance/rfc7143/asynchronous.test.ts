/** See asynchronous.ts. */
import t from 'tap';
import { asynchronous } from './asynchronous.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(asynchronous, target);
