/**
 * The stage's layout in one SharedArrayBuffer. All offsets and sizes are in 32-bit words; a `ref` is the word offset of
 * a record, so 0 (the header) is never a record and means "none".
 *
 * ```text
 *         +---------------------------------------------------------------+
 *      0  | header: one cache line (16 words) for each contended word     |
 *         |   [0] MAGIC  [1..6] geometry       written once, before share |
 *         |   [16] ARENA_NEXT                  compare-and-swap           |
 *         |   [32] NAME_COUNT                  Atomics.add                |
 *         +---------------------------------------------------------------+
 *     48  | shard records: two cache lines each, written by the shard's   |
 *         |   one thread: FIRST LAST USED_BYTES NAMES UNUSED_NAMES        |
 *         |   NAME_BYTES NODES SCATTERED PARKED PARKED_BYTES REUSE_WORDS  |
 *         |   and from [12] FREE, 20 lists by size                        |
 *         +---------------------------------------------------------------+
 *         | reserve slots: 2^n more node slots, for tiny nodes  (CAS)     |
 *         +---------------------------------------------------------------+
 *         | names by id: refs of name records, 0 = none  (Atomics.store)  |
 *         +---------------------------------------------------------------+
 *         | name slots: 2^n refs of name records, 0 = free  (CAS)         |
 *         +---------------------------------------------------------------+
 *         | node slots: 2^n refs of node records, 0 = free  (CAS)         |
 *         +---------------------------------------------------------------+
 *         | arenas of 64 KiB, handed to threads by ARENA_NEXT; a thread   |
 *         | fills its own with name records, node records and fragments   |
 *         +---------------------------------------------------------------+
 *
 *  name record      [ID | LENGTH | HASH | text, NUL-padded to words]
 *  node record      [NUMBER | LENGTH | PARENT | SHARD | text with its NUL, padded: the wire form of a node's name]
 *                   and right behind it a fragment, the first one of the node in the shard that made it
 *  fragment         [NEXT | NODE | SAME | USED | ROOM | properties in FDT wire form, with name ids for string offsets]
 *  names chunk      [NEXT | COUNT | ids of names that the shard uses]
 * ```
 *
 * **Protocol.** A name or node record is filled with plain stores in an arena that only the filling thread knows, then
 * published by one compare-and-swap of its slot (release): of the first free one in the order in which its key looks at
 * slots, which is the same for every thread. A reader that finds a non-zero slot loads it with Atomics.load
 * (acquire) before it reads the record; a published record never changes, but for NUMBER, of which only the finalizer
 * knows. Who published a name notes its place by id with Atomics.store; who does not find it there yet looks at all slots.
 * A fragment belongs to one shard, and a shard to one thread at a time: its words are plain, and are read by another thread
 * only after a message from the writing thread (which orders them). USED is stored last, so a fragment is whole up to USED at any moment.
 * The fragment behind a node's record belongs to the shard that made the node (SHARD, which anybody may read), from the
 * start; its NODE is UNLINKED until it is in the shard's chain.
 * SAME leads to the next fragment of the same node; the writer links those of its shard, the finalizer those of all shards.
 *
 * **Room that is used again.** What a shard takes out leaves its chain. The first fragment of the node is *parked*: one behind
 * the node's record stays there, with NODE = PARKED; another one is in the list PARKED. When the node is added again, it goes
 * on there. All other fragments become free: NODE = 0, in the list FREE[n] with 2^(n+4) words of room or more. All of this belongs to
 * the shard, like its chain: nobody else reads those words before a message.
 * ROOM is how many words the fragment may have again once it was emptied; while it grows for the first time, at the end of
 * its thread's arena, ROOM may be less than USED.
 * From its first removal or replacement on, a shard makes only fragments of 2^n words, so that any of them can take the place of another.
 * No node's name is forgotten, since another thread may be looking at its record: it is charged (PARKED_BYTES) until the shard adds the node again.
 *
 * A chain is in **wire order** if it has one top node, each other node stands behind its parent or behind what is below an
 * earlier sibling, and each node's fragments are together. The finalizer copies such a chain as it is. SCATTERED is 1 in the record
 * of a shard whose chain may not be so, or has a node that another shard made, or a name that has to be compared with those
 * of siblings: then the nodes are put in order first.
 */

export const STAGE_MAGIC = 0x4b535447; // "KSTG"
const CACHE_LINE_WORDS = 16;

export const HEADER_MAGIC = 0;
export const HEADER_SHARD_COUNT = 1;
export const HEADER_NAME_SLOTS = 2;
export const HEADER_NODE_SLOTS = 3;
export const HEADER_TOTAL_WORDS = 4;
export const HEADER_RESERVE_SLOTS = 5;
export const HEADER_ARENA_NEXT = CACHE_LINE_WORDS;
export const HEADER_NAME_COUNT = HEADER_ARENA_NEXT + CACHE_LINE_WORDS;
export const HEADER_WORDS = HEADER_NAME_COUNT + CACHE_LINE_WORDS;

export const SHARD_FIRST = 0;
export const SHARD_LAST = 1;
export const SHARD_USED_BYTES = 2;
/** The newest chunk of the list of names that the shard uses. */
export const SHARD_NAMES = 3;
/** 1 if that list may hold names that no property has any more. */
export const SHARD_UNUSED_NAMES = 4;
/** How many of USED_BYTES are those of names. */
export const SHARD_NAME_BYTES = 5;
/** How many nodes were opened. */
export const SHARD_NODES = 6;
/** 1 if the chain cannot be rendered as it is. */
export const SHARD_SCATTERED = 7;
/** The list of parked fragments that are not behind their node's record, by NEXT. */
export const SHARD_PARKED = 8;
/** FDT bytes, without properties, of nodes that the shard once had. */
export const SHARD_PARKED_BYTES = 9;
/** Words of fragments that were made in a shard from which something was taken out before. */
export const SHARD_REUSE_WORDS = 10;
/** Lists of free fragments, by NEXT: one for each power of two of ROOM, the last for all beyond. */
export const SHARD_FREE = 12;
export const FREE_LISTS = 20;
export const SHARD_WORDS = 2 * CACHE_LINE_WORDS;

export const NAME_ID = 0;
export const NAME_LENGTH = 1;
export const NAME_HASH = 2;
export const NAME_TEXT = 3;

/** Where the finalizer has its links of the node, if it has; any value before. */
export const NODE_NUMBER = 0;
export const NODE_LENGTH = 1;
export const NODE_PARENT = 2;
/** The shard for which the node was made, or {@link NO_SHARD}. */
export const NODE_SHARD = 3;
export const NODE_TEXT = 4;

/** As the maker of a node: it belongs to no shard. */
export const NO_SHARD = -1;

export const FRAGMENT_NEXT = 0;
/** The node's ref; 0 if the fragment is free. */
export const FRAGMENT_NODE = 1;
/** As FRAGMENT_NODE: the fragment came with its node's record, and is in no chain yet. */
export const UNLINKED = -1;
/** As FRAGMENT_NODE of such a fragment: its shard took the node out. */
export const PARKED = -2;
export const FRAGMENT_SAME = 2;
export const FRAGMENT_USED = 3;
/** Words behind the header that are the fragment's even if it does not use them; see above. */
export const FRAGMENT_ROOM = 4;
export const FRAGMENT_DATA = 5;
/** A free fragment has 2^4 words of room at least, and so much is left to one that is emptied. */
export const LEAST_ROOM_POWER = 4;

export const NAMES_NEXT = 0;
export const NAMES_COUNT = 1;
export const NAMES_IDS = 2;
/** Names of one chunk: with its header it has 32 words. */
export const NAMES_ROOM = 30;

/** A property in a fragment: tag and length in wire order, the name id in native order, then the value. */
export const PROPERTY_TAG = 0;
export const PROPERTY_LENGTH = 1;
export const PROPERTY_NAME = 2;
export const PROPERTY_VALUE = 3;

export const ARENA_BYTES = 64 * 1024;
export const ARENA_WORDS = ARENA_BYTES / 4;
/** A request beyond this share of an arena gets arenas of its own, so that at most this much is ever left unused. */
export const LARGE_REQUEST_WORDS = ARENA_WORDS / 4;

/** The stage's heap stays below 4 GiB, so that a word index fits 30 bits (and a WebAssembly memory could hold it). */
export const MAX_STAGE_BYTES = 2 ** 32;

/** Where each part of a stage begins, computed from its geometry. */
export interface StageGeometry {
  readonly shardCount: number;
  readonly nameSlots: number;
  readonly nodeSlots: number;
  /** For nodes that find their node slots taken. */
  readonly reserveSlots: number;
  readonly shardsAt: number;
  readonly reserveSlotsAt: number;
  readonly namesAt: number;
  readonly nameSlotsAt: number;
  readonly nodeSlotsAt: number;
  readonly arenasAt: number;
  readonly totalWords: number;
}

/** The geometry of a stage with these counts; `arenaBytes` is rounded up to whole arenas. Slots must be powers of two. */
export function stageGeometry(counts: {
  shardCount: number;
  nameSlots: number;
  nodeSlots: number;
  reserveSlots: number;
  arenaBytes: number;
}): StageGeometry {
  const { shardCount, nameSlots, nodeSlots, reserveSlots } = counts;
  const shardsAt = HEADER_WORDS;
  const reserveSlotsAt = shardsAt + shardCount * SHARD_WORDS;
  const namesAt = reserveSlotsAt + reserveSlots;
  const nameSlotsAt = namesAt + nameSlots;
  const nodeSlotsAt = nameSlotsAt + nameSlots;
  const arenasAt = Math.ceil((nodeSlotsAt + nodeSlots) / ARENA_WORDS) * ARENA_WORDS;
  const totalWords = arenasAt + Math.ceil(counts.arenaBytes / ARENA_BYTES) * ARENA_WORDS;
  return {
    shardCount,
    nameSlots,
    nodeSlots,
    reserveSlots,
    shardsAt,
    reserveSlotsAt,
    namesAt,
    nameSlotsAt,
    nodeSlotsAt,
    arenasAt,
    totalWords,
  };
}

/** A node of the stage: the ref of its record, or a driver's root (see {@link driverRoot}). */
export type NodeRef = number;

/** The parent of driver `index`'s instance nodes. Below the header's size, so never the ref of a record. */
export function driverRoot(index: number): NodeRef {
  return -(index + 1);
}

/** The driver index of a {@link driverRoot}. */
export function driverOfRoot(root: NodeRef): number {
  return -root - 1;
}
