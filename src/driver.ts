export { KhoError } from './errors.js';
