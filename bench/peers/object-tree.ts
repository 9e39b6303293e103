import type { PropertyName } from 'khorus/driver';
import { highHalf, type LoadContext, type LoadNode } from '../load.js';
import type { DirectWriter } from './direct-writer.js';

/** A node as plain data. */
export interface ObjectNode {
  readonly name: string;
  readonly properties: Record<string, number>;
}

/** A property as plain data. */
export interface ObjectProperty {
  readonly node: string;
  readonly name: string;
  readonly value: number;
}

/** What a worker sends: some of an instance. */
export interface ObjectBatch {
  readonly instance: string;
  readonly nodes: readonly ObjectNode[];
  readonly properties: readonly ObjectProperty[];
}

/** Objects of one message: the main thread takes one batch apart while the worker makes the next. */
const BATCH = 1000;

/**
 * A peer: the worker makes plain objects and posts them, so that they are copied by structured clone. One object for each
 * node, with its properties by name: fewer objects than any other natural form.
 */
export class ObjectContext implements LoadContext {
  readonly #instance: string;
  readonly #send: (batch: ObjectBatch) => void;
  #nodes: ObjectNode[] = [];

  constructor(instance: string, send: (batch: ObjectBatch) => void) {
    this.#instance = instance;
    this.#send = send;
  }

  node(name: string): LoadNode {
    if (this.#nodes.length === BATCH) this.end();
    const node = { name, properties: {} };
    this.#nodes.push(node);
    return new NodeObject(node.properties);
  }

  name(): PropertyName {
    throw new Error('objects have their properties by name');
  }

  end(): void {
    this.#send({ instance: this.#instance, nodes: this.#nodes, properties: [] });
    this.#nodes = [];
  }
}

class NodeObject implements LoadNode {
  readonly #properties: Record<string, number>;

  constructor(properties: Record<string, number>) {
    this.#properties = properties;
  }

  u64(name: string | PropertyName, value: number): this {
    this.#properties[name] = value;
    return this;
  }
}

/** The same with an object for each property: what one gets who sends state as he comes upon it. */
export class PropertyObjectContext implements LoadContext {
  readonly #instance: string;
  readonly #send: (batch: ObjectBatch) => void;
  #properties: ObjectProperty[] = [];

  constructor(instance: string, send: (batch: ObjectBatch) => void) {
    this.#instance = instance;
    this.#send = send;
  }

  node(name: string): LoadNode {
    if (this.#properties.length >= BATCH) this.end();
    return new PropertyObjects(name, this.#properties);
  }

  name(): PropertyName {
    throw new Error('objects have their properties by name');
  }

  end(): void {
    this.#send({ instance: this.#instance, nodes: [], properties: this.#properties });
    this.#properties = [];
  }
}

class PropertyObjects implements LoadNode {
  readonly #node: string;
  readonly #properties: ObjectProperty[];

  constructor(node: string, properties: ObjectProperty[]) {
    this.#node = node;
    this.#properties = properties;
  }

  u64(name: string, value: number): this {
    this.#properties.push({ node: this.#node, name, value });
    return this;
  }
}

/** The main thread's part: the FDT of what has arrived, instances in their order. */
export function writeObjects(
  writer: DirectWriter,
  instances: readonly string[],
  batches: readonly ObjectBatch[],
): void {
  const byInstance = new Map<string, ObjectBatch[]>(instances.map((name) => [name, []]));
  for (const batch of batches) byInstance.get(batch.instance)?.push(batch);
  for (const [instance, parts] of byInstance) {
    writer.beginNode(instance);
    for (const { nodes, properties } of parts) {
      writeNodes(writer, nodes);
      writeProperties(writer, properties);
    }
    writer.endNode();
  }
}

function writeNodes(writer: DirectWriter, nodes: readonly ObjectNode[]): void {
  for (const { name, properties } of nodes) {
    writer.beginNode(name);
    for (const property in properties) {
      const value = properties[property] as number;
      writer.u64(writer.nameId(property), highHalf(value), value);
    }
    writer.endNode();
  }
}

/** The properties of a node stand together, in one batch. */
function writeProperties(writer: DirectWriter, properties: readonly ObjectProperty[]): void {
  let current: string | undefined;
  for (const { node, name, value } of properties) {
    if (node !== current) {
      if (current !== undefined) writer.endNode();
      writer.beginNode(node);
      current = node;
    }
    writer.u64(writer.nameId(name), highHalf(value), value);
  }
  if (current !== undefined) writer.endNode();
}
