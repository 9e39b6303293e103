import { type FdtNode, type FdtProperty, KhoError } from '../driver.js';

/** A property that a node must have; otherwise KHO_ENOENT with the node's path. */
export function requiredProperty(node: FdtNode, name: string): FdtProperty {
  const property = node.property(name);
  if (property === undefined) {
    throw new KhoError('KHO_ENOENT', `node ${node.path} has no property '${name}'`, {
      path: node.path,
      property: name,
    });
  }
  return property;
}
