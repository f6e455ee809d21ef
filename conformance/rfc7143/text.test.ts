/** The course of a text negotiation: see text.ts. */
import t from 'tap';
import { demonstrate } from './requirement.js';
import { startTarget } from './target.js';
import { text } from './text.js';

const target = await startTarget();
t.teardown(() => target.stop());
await demonstrate(text, target);
