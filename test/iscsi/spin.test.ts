/** The poll after a receive: when it runs, and above all when it does not. */
import t from 'tap';
import { Spin } from '../../src/iscsi/spin.js';

/** An event loop whose turns take as long as told. */
class Loop {
  ms = 1000;
  #next: (() => void)[] = [];
  now = (): number => this.ms;
  nextTurn = (callback: () => void): void => void this.#next.push(callback);

  /** Runs turns of `turnMs` until none is wanted, `turnsMax` at most; answers how many ran. */
  turns(turnMs = 1 / 128, turnsMax = 100_000): number {
    let turns = 0;
    for (; this.#next.length > 0 && turns < turnsMax; turns++) {
      this.ms += turnMs;
      for (const callback of this.#next.splice(0)) callback();
    }
    return turns;
  }
}

void t.test('polls for the given time after the last receive, and not before the first', (t) => {
  const loop = new Loop();
  const spin = new Spin(250, loop);
  t.equal(loop.turns(), 0, 'no session, no poll');
  spin.active();
  t.equal(loop.turns(), 32);
  spin.active();
  t.equal(loop.turns(1 / 128, 30), 30);
  spin.active();
  t.equal(loop.turns(), 32, 'a receive begins the time anew');
  const never = new Spin(0, loop);
  never.active();
  t.equal(loop.turns(), 0, '0: never');
  t.end();
});

void t.test('a poll that finds nothing is left out more and more, and comes back when it helps', (t) => {
  const loop = new Loop();
  const spin = new Spin(200, loop);
  let polled = 0;
  for (let receive = 0; receive < 10_000; receive++) {
    spin.active();
    if (loop.turns() > 0) polled++;
    loop.ms += 1;
  }
  t.ok(polled < 10_000 / 100, `${polled} of 10000 receives, 1 ms apart, are followed by a poll`);
  let turns = 0;
  for (let receive = 0; receive < 1000; receive++) {
    spin.active();
    turns += loop.turns(1 / 128, 10);
    loop.ms += 0.01;
  }
  t.ok(turns > 7000, 'and soon all are when they follow each other closely');
  t.end();
});

void t.test('an empty turn that takes a millisecond makes it pause, longer every time', (t) => {
  const loop = new Loop();
  const spin = new Spin(200, loop);
  let polledMs = 0;
  for (const until = loop.ms + 10_000; loop.ms < until;) {
    spin.active();
    const before = loop.ms;
    // Receives keep coming, but every few turns somebody else gets the processor.
    if (loop.turns(1 / 128, 3) > 0) loop.turns(4, 1);
    polledMs += loop.ms - before;
    loop.ms += 0.03;
  }
  t.ok(polledMs < 100, `${polledMs} ms of ten busy seconds are polled`);
  t.end();
});

void t.test('a turn that handles commands may take its time', (t) => {
  const loop = new Loop();
  const spin = new Spin(200, loop);
  for (let receive = 0; receive < 100; receive++) {
    loop.ms += 5;
    spin.active();
    t.ok(loop.turns(1 / 128, 10) === 10, 'no pause');
  }
  t.end();
});
