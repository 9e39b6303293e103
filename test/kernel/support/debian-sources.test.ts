import { expect, test } from 'vitest';
import { parseSources, withSuite } from './debian-sources.js';

test('a deb822 file has an entry a paragraph, with comments and values over several lines', () => {
  const entries = parseSources(
    'debian.sources',
    `# of the image
Types: deb deb-src
# a snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
`,
  );
  expect(entries.map(({ suites, components }) => [suites, components])).toEqual([
    [
      ['bookworm', 'bookworm-updates'],
      ['main', 'contrib'],
    ],
  ]);
  expect(withSuite(entries[0], 'sid')).toBe(`Types: deb
URIs: http://mirror.example/debian
Signed-By: 
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
Suites: sid
Components: main contrib
`);
});

test('a one-line file has an entry a line, with or without options', () => {
  const entries = parseSources(
    '/etc/apt/sources.list',
    `# deb http://mirror.example/old bookworm main
deb http://mirror.example/debian bookworm main non-free # why
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,arm64 signed-by=/keys/debian.gpg] http://mirror.example/debian bookworm main
`,
  );
  expect(entries.map((entry) => withSuite(entry, 'sid'))).toEqual([
    'Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main non-free\n',
    'Types: deb\nURIs: http://mirror.example/debian\nArchitectures: amd64 arm64\nSigned-By: /keys/debian.gpg\nSuites: sid\nComponents: main\n',
  ]);
});

test('files that are none of apt’s are passed over', () => {
  expect(parseSources('debian.sources.bak', 'Types: deb\nURIs: x\nSuites: y\nComponents: main\n')).toEqual([]);
});
