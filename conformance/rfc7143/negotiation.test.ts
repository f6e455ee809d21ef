/** See negotiation.ts. */
import t from 'tap';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';
import { negotiation } from './negotiation.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(negotiation, target);
