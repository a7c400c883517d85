import { readFileSync } from 'node:fs'

/** A file of test/vectors as JSON; `T` says what the caller takes from it. */
export function readVectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../vectors/${name}`, import.meta.url), 'utf8')) as T
}
