import { gzipSync } from 'node:zlib';

/** A file of an archive: its path without a leading slash, and its bytes. Directories on the way are made. */
export type ArchiveFiles = Readonly<Record<string, Uint8Array | string>>;

const MAGIC = '070701';
const DIRECTORY_MODE = 0o040755;
/** Executable: one of them is the guest's /init. */
const FILE_MODE = 0o100755;
const TRAILER = 'TRAILER!!!';
const ALIGNMENT = 4;

/**
 * An initramfs: a newc cpio archive, compressed with gzip (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
 * Fast rather than small: a kernel inside of it does not get smaller anyway.
 */
export function initramfs(files: ArchiveFiles): Uint8Array {
  return gzipSync(newc(files), { level: 1 });
}

/** The archive: each entry a header of 13 hexadecimal fields, the name with a zero, the bytes; name and bytes padded to 4. */
export function newc(files: ArchiveFiles): Uint8Array {
  const parts: Uint8Array[] = [];
  let inode = 0;
  const add = (name: string, mode: number, data: Uint8Array): void => {
    const nameBytes = Buffer.from(`${name}\0`);
    const links = mode === DIRECTORY_MODE ? 2 : 1;
    //              ino        mode  uid gid nlink  mtime filesize   dev     rdev    namesize        check
    const fields = [++inode, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, nameBytes.length, 0];
    const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    parts.push(padded(Buffer.concat([Buffer.from(header), nameBytes])), padded(data));
  };
  const directories = new Set<string>();
  for (const [path, data] of Object.entries(files)) {
    const names = path.split('/').slice(0, -1);
    for (const [index] of names.entries()) {
      const directory = names.slice(0, index + 1).join('/');
      if (!directories.has(directory)) add(directory, DIRECTORY_MODE, new Uint8Array());
      directories.add(directory);
    }
    add(path, FILE_MODE, typeof data === 'string' ? Buffer.from(data) : data);
  }
  add(TRAILER, 0, new Uint8Array());
  return Buffer.concat(parts);
}

function padded(bytes: Uint8Array): Uint8Array {
  const padding = (ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT;
  return Buffer.concat([bytes, new Uint8Array(padding)]);
}
