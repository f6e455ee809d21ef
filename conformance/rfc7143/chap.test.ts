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
t.teardown(() => target.stop());
await demonstrate(chap, target);
