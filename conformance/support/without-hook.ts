/**
 * tap's runner puts a hook, with a thread, into every node process that a test starts, by way of NODE_OPTIONS. It tells
 * nothing that is wanted here, and daemons and commands take twice as long to begin with it: a test that starts some
 * imports this.
 */
import process from 'node:process';

const HOOK = /"?--import=\S*@tapjs\/processinfo[^\s"]*"?/g;

const options = process.env['NODE_OPTIONS']?.replace(HOOK, '').trim();
if (options === undefined || options === '') delete process.env['NODE_OPTIONS'];
else process.env['NODE_OPTIONS'] = options;
