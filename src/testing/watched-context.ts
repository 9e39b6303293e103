/**
 * The same object, with `onCall` called after each of its methods has returned, and after those of the node writers, shards
 * and memory that it hands out.
 */
export function watchedContext<T extends object>(target: T, onCall: () => void): T {
  const watched: T = new Proxy(target, {
    get(of, property) {
      const value: unknown = Reflect.get(of, property, of);
      if (typeof value !== 'function') return handsOut(value) ? watchedContext(value, onCall) : value;
      return (...args: unknown[]): unknown => {
        const result: unknown = Reflect.apply(value, of, args);
        onCall();
        if (result === of) return watched;
        return handsOut(result) ? watchedContext(result, onCall) : result;
      };
    },
  });
  return watched;
}

/** Node writers, shards and memory: what has calls that only a callback may make. */
function handsOut(value: unknown): value is object {
  return typeof value === 'object' && value !== null && ('u32' in value || 'root' in value || 'readU64' in value);
}
