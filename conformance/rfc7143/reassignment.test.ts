/** See reassignment.ts. */
import t from 'tap';
import { reassignment } from './reassignment.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(reassignment, target);
