// Comlink 4 has no `exports` map, and its ES modules have no declarations that NodeNext finds (its own need the DOM).
// These say what comlink.ts uses of it, and nothing else may import them.

declare module 'comlink/dist/esm/comlink.mjs' {
  export const releaseProxy: unique symbol;
  export function expose(api: object, endpoint: unknown): void;
  export function wrap(endpoint: unknown): unknown;
}

declare module 'comlink/dist/esm/node-adapter.mjs' {
  export default function nodeEndpoint(port: unknown): unknown;
}
