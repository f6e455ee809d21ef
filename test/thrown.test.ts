import t from 'tap';
import { asError, messageOf } from '../src/thrown.js';

void t.test('What was thrown is told, whether it is an Error or not', (t) => {
  const error = new Error('no space');
  t.equal(asError(error), error);
  t.equal(messageOf(error), 'no space');
  t.ok(asError('no space') instanceof Error);
  t.equal(messageOf('no space'), 'no space');
  t.equal(messageOf(undefined), 'undefined');
  t.end();
});
