/** Sizes as people write them. */
import { Problem } from '../../protocol/problem.ts'

const units: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
}

/** `500GB`, `1.5TiB`, `64M`, `1000`, in bytes; K, M, G and T alone are those of 1024. Problem `usage`. */
export function parseSize(text: string): number {
  const [, number, unit = ''] = /^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$/.exec(text.trim()) ?? []
  const bytes = Math.round(Number(number) * (units[unit.toLowerCase()] ?? Number.NaN))
  if (Number.isSafeInteger(bytes)) return bytes
  throw new Problem('usage', `"${text.slice(0, 40)}" is no size; write 500GB, 1.5TiB or a number of bytes`)
}
