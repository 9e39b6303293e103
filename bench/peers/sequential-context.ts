import type { PropertyName } from 'khorus/driver';
import { highHalf, type LoadContext, type LoadNode } from '../load.js';

/** What a peer writes to that takes nodes front to back only. */
export interface SequentialWriter {
  beginNode(name: string): void;
  nameId(name: string): number;
  u64(name: number, high: number, low: number): void;
  endNode(): void;
}

/** The context that a callback gets when it writes front to back; one for each instance, whose node has begun. */
export class SequentialContext implements LoadContext {
  readonly #writer: SequentialWriter;
  #inNode = false;

  constructor(writer: SequentialWriter) {
    this.#writer = writer;
  }

  node(name: string): LoadNode {
    if (this.#inNode) this.#writer.endNode();
    this.#inNode = true;
    this.#writer.beginNode(name);
    return new SequentialNode(this.#writer);
  }

  name(text: string): PropertyName {
    return this.#writer.nameId(text) as PropertyName;
  }

  /** Ends the instance's node. */
  end(): void {
    if (this.#inNode) this.#writer.endNode();
    this.#writer.endNode();
  }
}

class SequentialNode implements LoadNode {
  readonly #writer: SequentialWriter;

  constructor(writer: SequentialWriter) {
    this.#writer = writer;
  }

  u64(name: string | PropertyName, value: number): this {
    const id = typeof name === 'number' ? name : this.#writer.nameId(name);
    this.#writer.u64(id, highHalf(value), value);
    return this;
  }
}
