/**
 * The task set of a logical unit (SAM-6 §8): tasks that outlive `submit`, and the order that their attributes ask for.
 * Tasks that end inside `submit` never come here.
 *
 * One task set serves all I_T nexuses (TST = 000b). SIMPLE tasks run side by side (queue algorithm modifier 1h); an
 * ORDERED task waits for all older ones and holds back all younger ones; a HEAD OF QUEUE task starts at once.
 */
import { STATUS } from './sense.js';
import { status } from './respond.js';
import type { Task } from './task.js';
import { TASK_ATTRIBUTE } from './task.js';
import { PHASE } from './unit.js';

export class TaskSet {
  private readonly running = new Set<Task>();
  private waiting: Task[] = [];
  /** An ORDERED task is under way. */
  private ordered: Task | undefined;
  private readonly start: (task: Task) => void;
  private readonly orderingChanged: () => void;
  private advancing = false;
  private readonly endings: (() => void)[] = [];

  constructor(start: (task: Task) => void, orderingChanged: () => void) {
    this.start = start;
    this.orderingChanged = orderingChanged;
  }

  /** True while the order of arrival matters: every new task must pass `admit`. */
  get ordering(): boolean {
    return this.waiting.length > 0 || this.ordered !== undefined;
  }

  /** Tasks that have started or wait, oldest first. */
  *all(): Generator<Task> {
    yield* this.running;
    yield* this.waiting;
  }

  /** Tasks that have started or wait. */
  get depth(): number {
    return this.running.size + this.waiting.length;
  }

  /** True if the task may start now; else it is queued and `start` is called in its turn. */
  admit(task: Task): boolean {
    const { attribute } = task;
    if (attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE) return true;
    const blocked =
      attribute === TASK_ATTRIBUTE.ORDERED ? this.running.size > 0 || this.ordering : this.ordering;
    if (!blocked) return true;
    task.phase = PHASE.WAITING;
    this.waiting.push(task);
    this.orderingChanged();
    return false;
  }

  /** Remembers a task that did not end inside `submit`. */
  track(task: Task): void {
    task.phase = PHASE.TRACKED;
    this.running.add(task);
    if (task.attribute === TASK_ATTRIBUTE.ORDERED) {
      this.ordered = task;
      this.orderingChanged();
    }
  }

  /** Forgets a tracked task, which is about to end. */
  remove(task: Task): void {
    this.running.delete(task);
    if (this.ordered === task) {
      this.ordered = undefined;
      this.orderingChanged();
    }
  }

  /** Starts what may start now. */
  advance(): void {
    if (this.endings.length > 0) for (const check of [...this.endings]) check();
    if (this.waiting.length === 0 || this.advancing) return;
    this.advancing = true;
    let task: Task | undefined;
    while (this.ordered === undefined && (task = this.waiting.at(0)) !== undefined) {
      if (task.attribute === TASK_ATTRIBUTE.ORDERED && this.running.size > 0) break;
      this.waiting.shift();
      task.phase = PHASE.RUNNING;
      this.start(task);
      if (task.phase === PHASE.RUNNING) this.track(task);
    }
    this.advancing = false;
    this.orderingChanged();
  }

  /**
   * Aborts tasks (SAM-6 §5.6): nothing more of them reaches an initiator. Those that have operations under way end
   * when these are over: `whenEnded` tells.
   */
  abort(matches: (task: Task) => boolean): Task[] {
    const aborted: Task[] = [];
    const kept: Task[] = [];
    for (const task of this.waiting) (matches(task) ? aborted : kept).push(task);
    this.waiting = kept;
    for (const task of this.running) if (matches(task)) aborted.push(task);
    for (const task of aborted) {
      if (!task.aborted) task.discard();
      if (task.pending === 0) status(task, STATUS.TASK_ABORTED);
    }
    this.orderingChanged();
    this.advance();
    return aborted;
  }

  private stillEnding(tasks: readonly Task[]): boolean {
    return tasks.some((task) => this.running.has(task) && task.aborted);
  }

  /** Calls back once none of the tasks is under way any more. */
  whenEnded(tasks: readonly Task[], done: () => void): void {
    if (!this.stillEnding(tasks)) {
      done();
      return;
    }
    const check = (): void => {
      if (this.stillEnding(tasks)) return;
      this.endings.splice(this.endings.indexOf(check), 1);
      done();
    };
    this.endings.push(check);
  }
}
