import type { MessagePort, Worker } from 'node:worker_threads';
import { expose, releaseProxy, wrap } from 'comlink/dist/esm/comlink.mjs';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';

/** An object of another thread whose methods can be called from here. */
export type Remote<Api> = Api & { readonly [releaseProxy]: () => void };

/** Lets the other side of `port` call the methods of `api`. */
export function exposeOn(port: MessagePort, api: object): void {
  expose(api, nodeEndpoint(port));
}

/** The api that the worker exposes. Every method must return a promise. A dead worker never answers: race its exit. */
export function remoteOf<Api>(worker: Worker): Remote<Api> {
  return wrap(nodeEndpoint(worker)) as Remote<Api>;
}

/** Lets go of a remote: its messages no longer keep anything alive. */
export function release(remote: Remote<unknown>): void {
  remote[releaseProxy]();
}
