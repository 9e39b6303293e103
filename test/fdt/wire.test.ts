import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  align4,
  FDT_BEGIN_NODE,
  FDT_BEGIN_NODE_WIRE,
  FDT_END,
  FDT_END_NODE,
  FDT_END_NODE_WIRE,
  FDT_END_WIRE,
  FDT_HEADER_SIZE,
  FDT_NOP,
  FDT_NOP_WIRE,
  FDT_PROP,
  FDT_PROP_WIRE,
  nodeSize,
  propertySize,
  swap32,
  wire32,
} from '#dist/fdt/wire.js';

test('wire words stored through an Int32Array are big-endian in memory', () => {
  const words = Int32Array.of(FDT_BEGIN_NODE_WIRE, FDT_END_NODE_WIRE, FDT_PROP_WIRE, FDT_NOP_WIRE, FDT_END_WIRE);
  const view = new DataView(words.buffer);
  expect([0, 4, 8, 12, 16].map((at) => view.getUint32(at))).toEqual([
    FDT_BEGIN_NODE,
    FDT_END_NODE,
    FDT_PROP,
    FDT_NOP,
    FDT_END,
  ]);
  fc.assert(
    fc.property(fc.nat(0xffffffff), (value) => {
      words[0] = wire32(value);
      expect(view.getUint32(0)).toBe(value);
    }),
  );
});

test('swap32 reverses bytes and is its own inverse', () => {
  expect(swap32(0x01020304)).toBe(0x04030201);
  expect(swap32(0x000000ff)).toBe(0xff000000 | 0);
  fc.assert(fc.property(fc.integer(), (word) => swap32(swap32(word)) === word));
});

test('sizes are as the specification draws them', () => {
  expect([0, 1, 3, 4, 5, 2 ** 40 + 1].map(align4)).toEqual([0, 4, 4, 4, 8, 2 ** 40 + 4]);
  expect([0, 3, 4].map(nodeSize)).toEqual([12, 12, 16]);
  expect([0, 1, 8].map(propertySize)).toEqual([12, 16, 20]);
  expect(FDT_HEADER_SIZE).toBe(40);
});
