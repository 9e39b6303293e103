import { advanceTime, type Registers } from './vcpu-registers.js';

const INSTRUCTION_BYTES = 4n;
const CYCLES_PER_INSTRUCTION = 3;
const TICK_MS = 2;
const INSTRUCTIONS_PER_TICK = 50;

/**
 * A vCPU whose registers change in the background, and are nevertheless known when it is stopped.
 *
 * The trick: it runs from exit to exit, and where an exit is was settled by the seed. A timer executes a few
 * instructions at a time, as many as the thread finds time for. {@link stop} executes what is left up to the next exit,
 * as a real VMM lets a vCPU complete a pending operation before it reads the registers. So what has run by then is a
 * number of instructions and no matter of time, and two runs with one seed hand over the same bytes.
 */
export class RunningVcpu {
  readonly registers: Registers;
  /** Instructions from one exit to the next. */
  readonly quantum: number;
  #executed: number;
  #exitAt: number;
  #timer: NodeJS.Timeout | undefined;

  /** Stopped. `executed` is what it executed before. */
  constructor(registers: Registers, quantum: number, executed = 0) {
    this.registers = registers;
    this.quantum = quantum;
    this.#executed = executed;
    this.#exitAt = executed;
  }

  /** Instructions since it was made. */
  get executed(): number {
    return this.#executed;
  }

  get running(): boolean {
    return this.#timer !== undefined;
  }

  /**
   * Lets it run towards the next exit; there it waits to be stopped. The timer does not keep the process alive.
   * Nothing happens if it runs already: how far it got would decide whether another exit is due, and that is time.
   */
  start(): void {
    if (this.#timer !== undefined) return;
    this.#exitAt += this.quantum;
    this.#timer = setInterval(() => this.#execute(INSTRUCTIONS_PER_TICK), TICK_MS).unref();
  }

  /** Stops it at the exit, wherever the timer had got to. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#execute(this.#exitAt - this.#executed);
  }

  /** The guest's program: registers are added to registers. At the exit it goes no further. */
  #execute(instructions: number): void {
    const count = Math.min(instructions, this.#exitAt - this.#executed);
    if (count === 0) return;
    const { general } = this.registers;
    // Halves of 32 bits: arithmetic on bigints is 50 times slower.
    const words = new Uint32Array(general.buffer, general.byteOffset, general.length * 2);
    for (let index = 0; index < count; index++) {
      const executed = this.#executed + index;
      const from = executed % words.length;
      const to = (executed * 7 + 3) % words.length;
      words[to] = Math.imul(words[to] ^ (words[from] >>> 15), 0x9e3779b1) + words[from];
    }
    this.#executed += count;
    this.registers.rip += INSTRUCTION_BYTES * BigInt(count);
    advanceTime(this.registers, count * CYCLES_PER_INSTRUCTION);
  }
}
