import { KhoError } from '../errors.js';

/** Where ids of property names come from that several threads have in common. */
export interface NameSource {
  nameId(name: string): number;
  /** KHO_EINVAL for a number that is no name. */
  nameText(id: number): string;
}

/** Property names as numbers, for one thread: its own, counted from 0, or those of a source. */
export class PropertyNames {
  readonly #source: NameSource | undefined;
  readonly #ids = new Map<string, number>();
  /** By id; of a source, those that were met here. */
  readonly #texts: (string | undefined)[] = [];

  constructor(source?: NameSource) {
    this.#source = source;
  }

  /** One more than the highest id that was met. */
  get count(): number {
    return this.#texts.length;
  }

  id(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = this.#source?.nameId(name) ?? this.#texts.length;
      this.#ids.set(name, id);
      this.#texts[id] = name;
    }
    return id;
  }

  /** KHO_EINVAL for a number that is no name. */
  text(id: number): string {
    const text = this.#texts[id] ?? this.#source?.nameText(id);
    if (text === undefined) throw new KhoError('KHO_EINVAL', `${id} is not the id of a property name`);
    this.#texts[id] = text;
    return text;
  }
}
