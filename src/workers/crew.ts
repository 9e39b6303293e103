import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { Gate } from './gate.js';
import type { CrewOrder } from './stand-by.js';
import type { CallbackTask, StandByTask, TaskAnswer } from './task.js';

/** What a thread that stands by says: whether it knows the run, then answers. */
type CrewMessage = TaskAnswer | 'ready' | 'stranger';

interface Member {
  readonly port: MessagePort;
  /** Why its thread is gone. */
  lost?: unknown;
  resolve: (answer: CrewMessage) => void;
  reject: (error: unknown) => void;
}

/**
 * The threads of a pool that stand by for the phases of a blackout, so that a phase costs neither a task's way through the
 * pool nor a wake-up of each thread by the main thread (see {@link Gate}). Main thread.
 */
export class Crew {
  readonly #gate: Gate;
  readonly #members: readonly Member[];
  /** Resolves when every thread is back in the pool. */
  readonly #left: Promise<unknown>;
  #dismissed = false;

  private constructor(gate: Gate, members: readonly Member[], left: Promise<unknown>) {
    this.#gate = gate;
    this.#members = members;
    this.#left = left;
  }

  /**
   * Has `submit` bring a task to each thread of a pool, and waits until all stand by. Rejects if one of them cannot;
   * undefined if one does not know the run, because it has replaced another one: attach it first.
   */
  static async gather(
    runId: string,
    threads: number,
    submit: (task: StandByTask, transfer: readonly MessagePort[]) => Promise<unknown>,
  ): Promise<Crew | undefined> {
    const gate = Gate.create(threads);
    const barrier = { arrived: new SharedArrayBuffer(4), threads };
    const ready: Promise<unknown>[] = [];
    const ends: Promise<unknown>[] = [];
    const members = Array.from({ length: threads }, (_, slot): Member => {
      const { port1, port2 } = new MessageChannel();
      const member: Member = { port: port1, resolve: () => {}, reject: () => {} };
      ready.push(answerOf(member));
      port1.on('message', (answer: CrewMessage) => member.resolve(answer));
      const end = submit({ kind: 'stand-by', runId, gate: gate.buffer, slot, port: port2, barrier }, [port2]);
      ends.push(
        end
          .catch((error: unknown) => {
            member.lost = error;
            member.reject(error);
          })
          .finally(() => {
            // The task's end may overtake an answer, which comes through another port.
            const late = receiveMessageOnPort(port1);
            if (late !== undefined) member.resolve(late.message as TaskAnswer);
            port1.close();
          }),
      );
      return member;
    });
    const crew = new Crew(gate, members, Promise.all(ends));
    try {
      const messages = await Promise.all(ready);
      if (!messages.includes('stranger')) return crew;
      await crew.dismiss();
      return undefined;
    } catch (error) {
      await crew.dismiss();
      throw error;
    }
  }

  /** Runs these tasks, one a thread and no more than there are, all at once. Each rejects if its thread dies. */
  run(tasks: readonly CallbackTask[]): Promise<TaskAnswer>[] {
    if (this.#dismissed) throw new KhoError('KHO_EWORKER', 'the crew was dismissed');
    const answers = tasks.map((task, slot) => {
      const member = this.#members[slot] as Member;
      if (member.lost !== undefined) return Promise.reject(member.lost);
      const answer = answerOf(member);
      member.port.postMessage(task satisfies CrewOrder);
      return answer.then(attachedAnswer);
    });
    this.#gate.open(
      tasks.length,
      this.#members.some(({ lost }) => lost !== undefined),
    );
    return answers;
  }

  /** Sends the threads back to the pool, and waits until they are there. A thread that is in a callback ends it first. */
  async dismiss(): Promise<void> {
    if (!this.#dismissed) {
      this.#dismissed = true;
      for (const { port } of this.#members) port.postMessage('leave' satisfies CrewOrder);
      this.#gate.open(this.#members.length, true);
    }
    await this.#left;
  }
}

/** Threads that stand by are attached to the run; one that is not has replaced one that died before. */
function attachedAnswer(answer: CrewMessage): TaskAnswer {
  if (typeof answer === 'object' && answer.attached) return answer;
  throw new KhoError('KHO_EWORKER', 'a thread that stands by does not know the run');
}

/** The next message of a member, or the end of its thread. */
function answerOf(member: Member): Promise<CrewMessage> {
  return new Promise((resolve, reject) => {
    member.resolve = resolve;
    member.reject = reject;
  });
}
