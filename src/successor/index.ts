export { restoreImage, type SuccessorInput } from './restore.js';
export { startSuccessor } from './start-successor.js';
export { verifyImage } from './verify-image.js';
