/**
 * A driver's module with fault points around another one's callbacks. Its URL says which: `?driver=URL`. With `&as=NAME` the
 * driver is compatible with NAME instead: a successor that does not know the format.
 */
import { loadDriver } from '../workers/load-driver.js';
import { wrapDriver } from './wrap-driver.js';

const { searchParams } = new URL(import.meta.url);
const url = searchParams.get('driver') ?? '';
const as = searchParams.get('as');
const driver = wrapDriver(await loadDriver({ url, origin: url }));

export default as === null ? driver : { ...driver, compatible: as };
