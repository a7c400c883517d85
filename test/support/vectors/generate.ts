/**
 * Makes the vectors that are the project's own (test/vectors): `node test/support/vectors/generate.ts`. A test holds the files
 * against what stands here. Published vectors (blake3.json, sha256.json) are kept by hand.
 */
import { writeFileSync } from 'node:fs'
import { blockVectors } from './blocks.ts'
import { cutVectors, listVectors } from './cuts.ts'
import { idVectors, nameVectors } from './names.ts'
import { objectVectors } from './objects.ts'
import { problemVectors } from './problems.ts'

/** File name to content. */
export const generated: Readonly<Record<string, () => Promise<unknown>>> = {
  'ids.json': async () => idVectors(),
  'names.json': async () => nameVectors(),
  'cuts.json': async () => cutVectors(),
  'lists.json': async () => listVectors(),
  'blocks.json': blockVectors,
  'objects.json': async () => objectVectors(),
  'problems.json': async () => problemVectors(),
}

/** JSON with a line per case; numbers stand in rows. */
export function formatVectors(value: unknown): string {
  const text = JSON.stringify(value, null, 1)
  return `${text.replace(/\[\s+(-?\d[\d\s,]*?)\s+\]/g, (_, row: string) => `[${row.replace(/\s+/g, ' ')}]`)}\n`
}

if (import.meta.main) {
  for (const [name, make] of Object.entries(generated)) {
    writeFileSync(new URL(`../../vectors/${name}`, import.meta.url), formatVectors(await make()))
  }
}
