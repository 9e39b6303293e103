import {
  type AllocationCase,
  allocationCases,
  allocExactNidRaw,
  allocTryNid,
  allocTryNidRaw,
  type ConformanceCase,
} from './allocation-case.js';
import { END, NODES, type Span } from './small-machine.js';

const base = (nid: number): number => NODES[nid][0];
const sizeOf = (nid: number): number => NODES[nid][1];
const end = (nid: number): number => base(nid) + sizeOf(nid);
const all = { memory: 'nodes', minimum: 0, maximum: END } as const;

/** The first and the last place of `size` bytes in a node. */
const inNode =
  (nid: number, size: number) =>
  (direction: 'top-down' | 'bottom-up'): number =>
    direction === 'top-down' ? end(nid) - size : base(nid);

/** A case with a result of its own for each direction, under a name of its own. */
function each(name: string, rest: Omit<AllocationCase, 'name' | 'direction'>): AllocationCase[] {
  const [prefix, suffix] = name.split('*');
  return [
    { name: `${prefix}top_down${suffix}`, direction: 'top-down', ...rest },
    { name: `${prefix}bottom_up${suffix}`, direction: 'bottom-up', ...rest },
  ];
}

/** 512 bytes across the border between node 2 and node 3. */
const acrossBorder = { memory: 'nodes', size: 512, minimum: end(2) - 256, maximum: end(2) + 256 } as const;
/** A range of addresses that holds nodes 2 to 5 alone. */
const middleNodes = { memory: 'nodes', size: 64, minimum: base(2), maximum: end(5) } as const;
/** A range across the border between node 5 and node 6. */
const elsewhere = { memory: 'nodes', size: 512, minimum: base(6) - 256, maximum: base(6) + 256 } as const;
/** The second and the third quarter of node 4: no half of it is free in one piece. */
const middleOfNode4: Span = [base(4) + 512, 1024];
/** Node 6 is free, with the kernel's own of node 6 on both sides. */
const fullMerge = {
  memory: 'nodes',
  nid: 6,
  reserved: [
    { span: [base(7), 128], kern: true, nid: 6 },
    { span: [base(6) - 128, 128], kern: true, nid: 6 },
  ],
  size: sizeOf(6),
  minimum: base(6),
  maximum: base(7),
  found: base(6),
  leaves: [[base(6) - 128, sizeOf(6) + 256]],
  recorded: 6,
} as const;
/** All is reserved but 256 bytes, half of them in node 6, half in node 7. */
const splitAllReserved = {
  memory: 'nodes',
  reserved: [{ span: [0, base(7) - 128] }, { span: [base(7) + 128, END - base(7) - 128] }],
  size: 256,
  minimum: base(7) - 128,
  maximum: base(7) + 128,
} as const;

/** What memblock_alloc_try_nid() and memblock_alloc_exact_nid_raw() agree on: the node asked for has room. */
function nodeHasRoom(prefix: string): AllocationCase[] {
  return [
    ...each(`${prefix}*_numa_simple_check`, {
      ...all,
      nid: 3,
      size: sizeOf(3) / 4,
      found: inNode(3, sizeOf(3) / 4),
      recorded: 3,
    }),
    {
      // What was reserved plainly does not merge with the allocation.
      name: `${prefix}top_down_numa_part_reserved_check`,
      direction: 'top-down',
      ...all,
      reserved: [{ span: [base(4), 1024] }],
      nid: 4,
      size: 256,
      found: end(4) - 256,
      leaves: [
        [base(4), 1024],
        [end(4) - 256, 256],
      ],
      recorded: 4,
    },
    {
      name: `${prefix}bottom_up_numa_part_reserved_check`,
      direction: 'bottom-up',
      ...all,
      reserved: [{ span: [base(4), 1024], kern: true, nid: 4 }],
      nid: 4,
      size: 256,
      found: base(4) + 1024,
      leaves: [[base(4), 1280]],
      recorded: 4,
    },
    // The minimum is dropped before the node is.
    ...each(`${prefix}*_numa_split_range_low_check`, { ...acrossBorder, nid: 2, found: inNode(2, 512), recorded: 2 }),
    ...each(`${prefix}*_numa_no_overlap_split_check`, { ...elsewhere, nid: 2, found: inNode(2, 512), recorded: 2 }),
  ];
}

const TRY_NID: AllocationCase[] = [
  ...nodeHasRoom('alloc_nid_'),
  // The node has no room: the last, or first, that has.
  ...each('alloc_nid_*_numa_small_node_check', {
    ...all,
    nid: 1,
    size: 2 * sizeOf(1),
    found: (direction) => inNode(direction === 'top-down' ? 6 : 0, 2 * sizeOf(1))(direction),
  }),
  {
    name: 'alloc_nid_top_down_numa_node_reserved_check',
    direction: 'top-down',
    ...all,
    reserved: [{ span: NODES[2] }],
    nid: 2,
    size: sizeOf(2),
    found: end(6) - sizeOf(2),
    leaves: [NODES[2], [end(6) - sizeOf(2), sizeOf(2)]],
  },
  {
    name: 'alloc_nid_bottom_up_numa_node_reserved_check',
    direction: 'bottom-up',
    ...all,
    reserved: [{ span: NODES[2] }],
    nid: 2,
    size: sizeOf(2),
    found: 0,
    leaves: [[0, sizeOf(2)], NODES[2]],
  },
  {
    name: 'alloc_nid_top_down_numa_part_reserved_fallback_check',
    direction: 'top-down',
    ...all,
    reserved: [{ span: middleOfNode4 }],
    nid: 4,
    size: 1024,
    found: END - 1024,
    leaves: [middleOfNode4, [END - 1024, 1024]],
  },
  {
    name: 'alloc_nid_bottom_up_numa_part_reserved_fallback_check',
    direction: 'bottom-up',
    ...all,
    reserved: [{ span: middleOfNode4 }],
    nid: 4,
    size: 1024,
    found: 0,
    leaves: [[0, 1024], middleOfNode4],
  },
  {
    name: 'alloc_nid_top_down_numa_split_range_high_check',
    direction: 'top-down',
    ...acrossBorder,
    nid: 3,
    found: end(2) - 512,
  },
  {
    name: 'alloc_nid_bottom_up_numa_split_range_high_check',
    direction: 'bottom-up',
    ...acrossBorder,
    nid: 3,
    found: 0,
  },
  // The range holds none of the node: another node of the range, before the minimum would be dropped.
  ...(
    [
      ['low', 0],
      ['high', 7],
    ] as const
  ).flatMap(([name, nid]) =>
    each(`alloc_nid_*_numa_no_overlap_${name}_check`, {
      ...middleNodes,
      nid,
      found: (direction) => (direction === 'top-down' ? end(5) - 64 : base(2)),
    }),
  ),
  { name: 'alloc_nid_numa_large_region_generic_check', direction: 'both', ...all, nid: 3, size: END / 2 },
  { name: 'alloc_nid_numa_reserved_full_merge_generic_check', direction: 'both', ...fullMerge },
  { name: 'alloc_nid_numa_split_all_reserved_generic_check', direction: 'both', ...splitAllReserved },
  {
    name: 'alloc_node_on_correct_nid',
    direction: 'both',
    memory: 'nodes',
    nid: 2,
    size: 512,
    found: inNode(2, 512),
    recorded: 2,
  },
];

const EXACT_NID: AllocationCase[] = [
  ...nodeHasRoom('alloc_exact_nid_'),
  // The minimum is dropped, as the node may not be.
  ...each('alloc_exact_nid_*_numa_no_overlap_low_check', {
    ...middleNodes,
    nid: 0,
    found: inNode(0, 64),
    recorded: 0,
  }),
  { name: 'alloc_exact_nid_numa_small_node_generic_check', direction: 'both', ...all, nid: 1, size: 2 * sizeOf(1) },
  {
    name: 'alloc_exact_nid_numa_node_reserved_generic_check',
    direction: 'both',
    ...all,
    reserved: [{ span: NODES[2] }],
    nid: 2,
    size: sizeOf(2),
  },
  {
    name: 'alloc_exact_nid_numa_part_reserved_fail_generic_check',
    direction: 'both',
    ...all,
    reserved: [{ span: middleOfNode4 }],
    nid: 4,
    size: 1024,
  },
  { name: 'alloc_exact_nid_numa_split_range_high_generic_check', direction: 'both', ...acrossBorder, nid: 3 },
  { name: 'alloc_exact_nid_numa_no_overlap_high_generic_check', direction: 'both', ...middleNodes, nid: 7 },
  { name: 'alloc_exact_nid_numa_large_region_generic_check', direction: 'both', ...all, nid: 3, size: END / 2 },
  { name: 'alloc_exact_nid_numa_reserved_full_merge_generic_check', direction: 'both', ...fullMerge },
  { name: 'alloc_exact_nid_numa_split_all_reserved_generic_check', direction: 'both', ...splitAllReserved },
];

/** Allocation for a node (alloc_nid_api and alloc_exact_nid_api of the simulator, with NUMA). */
export const NODE_CASES: readonly ConformanceCase[] = [
  ...allocationCases('memblock_alloc_try_nid', allocTryNid, TRY_NID),
  ...allocationCases('memblock_alloc_try_nid_raw', allocTryNidRaw, TRY_NID),
  ...allocationCases('memblock_alloc_exact_nid_raw', allocExactNidRaw, EXACT_NID),
];
