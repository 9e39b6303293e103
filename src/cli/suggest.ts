import { distance } from 'fastest-levenshtein';

/** The candidate that `found` is most likely a misspelling of; undefined when none is near. */
export function closest(found: string, candidates: Iterable<string>): string | undefined {
  const wanted = found.toLowerCase();
  let best: string | undefined;
  // A third of the letters may be wrong, and always two (`nod` for `nodes`); but not all of a short word.
  let limit = Math.min(Math.max(2, Math.floor(wanted.length / 3)), wanted.length - 1);
  for (const candidate of candidates) {
    const edits = distance(wanted, candidate.toLowerCase());
    if (edits > limit) continue;
    best = candidate;
    limit = edits - 1;
  }
  return best;
}

/** `; did you mean 'netdevsim'?`, or nothing when no candidate is near. */
export function didYouMean(found: string, candidates: Iterable<string>): string {
  const candidate = closest(found, candidates);
  return candidate === undefined ? '' : `; did you mean '${candidate}'?`;
}
