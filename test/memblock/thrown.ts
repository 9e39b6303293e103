import { KhoError } from 'khorus';

/** The KhoError that `call` throws; anything else fails the test. */
export function thrown(call: () => unknown): KhoError {
  try {
    call();
  } catch (error) {
    if (error instanceof KhoError) return error;
    throw error;
  }
  throw new Error('expected a KhoError, but nothing was thrown');
}
