import { expect, test } from 'vitest';
import { DmaGate } from '#dist/workers/dma-gate.js';

test('a gate lets writers in until it is closed, on every thread', () => {
  const gate = DmaGate.create();
  const device = DmaGate.attach(gate.handle);
  expect(device.enter()).toBe(true);
  device.leave();
  gate.close();
  expect([device.enter(), device.enter(), gate.enter()]).toEqual([false, false, false]);
  gate.close(); // nobody is left to wait for
  expect(device.enter()).toBe(false);
});

test('a writer that never ends its write is not waited for for ever, and nobody else comes in', () => {
  const gate = DmaGate.create();
  expect(gate.enter()).toBe(true);
  gate.close();
  expect(gate.enter()).toBe(false);
});
