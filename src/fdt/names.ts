import { KhoError } from '../errors.js';

/**
 * The longest part of a name, in characters: a property's name, and a node's name before and after its '@'.
 * The specification says 31; neither libfdt nor Linux enforces that, and real trees exceed it.
 */
export const FDT_MAX_NAME_PART = 63;

const NODE_CHARACTERS = '0-9 A-Z a-z , . _ + -';
const NODE_CHARACTER = /[0-9A-Za-z,._+-]/;
const PROPERTY_CHARACTER = /[0-9A-Za-z,._+?#-]/;
const AT_SIGN = '@'.charCodeAt(0);
/** By ASCII code: 1 for what a node's name may have. */
const IN_NODE_NAME = Uint8Array.from({ length: 128 }, (_, code) =>
  NODE_CHARACTER.test(String.fromCharCode(code)) ? 1 : 0,
);
const PROPERTY_NAME = new RegExp(`^${PROPERTY_CHARACTER.source}{1,${FDT_MAX_NAME_PART}}$`);

/**
 * Refuses what the Devicetree Specification v0.4 (2.2.1) does not allow as a node's name: `node-name`, or
 * `node-name@unit-address`, each of 1 to {@link FDT_MAX_NAME_PART} characters out of `0-9 A-Z a-z , . _ + -`.
 * Two of the specification's rules are not enforced, as libfdt and Linux do not enforce them either: 31 characters at
 * most, and a letter first (`0000-3b-00.0` is a fine name). The root's empty name is no name and is refused too.
 *
 * Throws KHO_EINVAL that names the name, what is wrong with it, and where possible a name that would be right.
 */
export function checkNodeName(name: string): void {
  if (isNodeName(name)) return;
  const at = name.indexOf('@');
  const nodeName = at < 0 ? name : name.slice(0, at);
  const unitAddress = at < 0 ? undefined : name.slice(at + 1);
  const allowed = `${NODE_CHARACTERS} and one '@'`;
  checkCharacters('node', name, nodeName, NODE_CHARACTER, allowed);
  if (unitAddress !== undefined) checkCharacters('node', name, unitAddress, NODE_CHARACTER, allowed);
  checkLength('node', name, nodeName, at < 0 ? 'a name' : "a name before its '@'");
  if (unitAddress !== undefined) checkLength('node', name, unitAddress, "a unit address after its '@'");
}

/** The whole rule at once, for the usual case of a right name: drivers open many nodes. The slow way finds what is wrong. */
function isNodeName(name: string): boolean {
  const { length } = name;
  let partStart = 0;
  for (let at = 0; at < length; at++) {
    const code = name.charCodeAt(at);
    if (code === AT_SIGN && partStart === 0 && at > 0 && at <= FDT_MAX_NAME_PART) partStart = at + 1;
    else if (IN_NODE_NAME[code] !== 1) return false;
  }
  const last = length - partStart;
  return last > 0 && last <= FDT_MAX_NAME_PART;
}

/**
 * Refuses what the Devicetree Specification v0.4 (2.2.4.1) does not allow as a property's name: 1 to
 * {@link FDT_MAX_NAME_PART} (the specification: 31) characters out of `0-9 A-Z a-z , . _ + ? # -`.
 * Throws KHO_EINVAL as {@link checkNodeName} does.
 */
export function checkPropertyName(name: string): void {
  if (PROPERTY_NAME.test(name)) return;
  checkCharacters('property', name, name, PROPERTY_CHARACTER, '0-9 A-Z a-z , . _ + ? # -');
  checkLength('property', name, name, 'a name');
}

/**
 * Whether two nodes of these names cannot stand beside one another: the names are equal, or one has no unit address and
 * is what the other has before its '@'. libfdt looks up `port` by finding the first of `port` and `port@…`, so it would
 * find the wrong one. `port@0` and `port@1` do not conflict.
 */
export function siblingsConflict(a: string, b: string): boolean {
  if (a.length === b.length) return a === b;
  return a.length < b.length ? isBaseOf(a, b) : isBaseOf(b, a);
}

function isBaseOf(base: string, name: string): boolean {
  // A base with an '@' of its own could match only a name with two of them, which is no name.
  return name.charCodeAt(base.length) === 0x40 && name.startsWith(base) && !base.includes('@');
}

type Kind = 'node' | 'property';

function checkCharacters(kind: Kind, name: string, part: string, allowed: RegExp, allowedText: string): void {
  for (const character of part) {
    if (allowed.test(character)) continue;
    throw new KhoError(
      'KHO_EINVAL',
      `'${printable(name)}' has ${quoted(character)}, which a ${kind}'s name cannot have (allowed: ${allowedText})${hint(kind, name)}`,
      kind === 'node' ? {} : { property: name },
    );
  }
}

function checkLength(kind: Kind, name: string, part: string, what: string): void {
  if (part.length >= 1 && part.length <= FDT_MAX_NAME_PART) return;
  const problem =
    part.length === 0
      ? `'${name}' is no ${kind}'s name: it lacks ${what}`
      : `'${name}' is too long: ${what} has at most ${FDT_MAX_NAME_PART} characters, this one has ${part.length}`;
  throw new KhoError('KHO_EINVAL', problem, kind === 'node' ? {} : { property: name });
}

/** A right name close to `name`; nothing where it would say nothing of the original. */
function hint(kind: Kind, name: string): string {
  const allowed = kind === 'node' ? NODE_CHARACTER : PROPERTY_CHARACTER;
  let firstAt = kind === 'node';
  let right = '';
  for (const character of name) {
    const keep = allowed.test(character) || (character === '@' && firstAt && right !== '');
    if (character === '@') firstAt = false;
    right += keep ? character : '-';
  }
  if (!/[0-9A-Za-z]/.test(right) || right.length > FDT_MAX_NAME_PART || right.endsWith('@')) return '';
  return `; write '${right}'`;
}

function quoted(character: string): string {
  const shown = printable(character);
  return shown === character ? `'${character}'` : shown;
}

/** Control characters, and halves of surrogate pairs, as U+XXXX: a terminal would act on them or show nothing. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
  });
}

/** Refuses only what cannot be written as a name at all: KHO_EINVAL unless 1 to 255 characters of one byte, none NUL. */
export function checkForeignName(name: string): void {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code === 0 || code > 0xff) {
      throw new KhoError('KHO_EINVAL', `'${printable(name)}' has ${quoted(name[i] ?? '')}, which no name can have`);
    }
  }
  if (name.length < 1 || name.length > 255) {
    throw new KhoError('KHO_EINVAL', `a name has 1 to 255 characters, '${name}' has ${name.length}`);
  }
}
