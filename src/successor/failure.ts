import type { FailureRecord } from '../coordinator/index.js';
import { KhoError } from '../errors.js';

/** A failure as the report tells it, with what it concerns. */
export function failureRecord(
  thrown: unknown,
  concerning: { driver: string; instance?: string; address?: number },
): FailureRecord {
  const error = KhoError.from(thrown);
  const address = error.details.address ?? concerning.address;
  return {
    code: error.code,
    message: error.message,
    driver: concerning.driver,
    ...(concerning.instance === undefined ? {} : { instance: concerning.instance }),
    ...(address === undefined ? {} : { address }),
  };
}
