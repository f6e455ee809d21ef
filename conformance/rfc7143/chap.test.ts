/** See chap.ts. */
import t from 'tap';
import { chap } from './chap.js';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';

const target = await startTarget({
  chap: {
    name: 'backup',
    secret: 'a secret of the user',
    mutualName: 'cldd',
    mutualSecret: 'a secret of the target',
  },
});
// Every refused login of this file waits longer for its answer than the one before.
t.setTimeout(180_000);
t.teardown(() => target.stop());
await demonstrate(chap, target);
