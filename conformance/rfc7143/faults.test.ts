/** See faults.ts. */
import t from 'tap';
import { faults } from './faults.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget({
  chap: {
    name: 'user',
    secret: 'a-secret-of-enough-bytes',
    mutualName: 'target',
    mutualSecret: 'another-secret-bytes',
  },
});
t.teardown(() => target.stop());
await demonstrate(faults, target);
