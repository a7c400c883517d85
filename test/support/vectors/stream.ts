/** The inputs of the vectors, described so that any language can make them (see README.md). */
import { hash } from 'node:crypto'

/** Byte strings that need no file: zeros, a repeated text, or the counter stream of a seed. */
export type Recipe =
  | { readonly kind: 'zeros'; readonly length: number }
  | { readonly kind: 'repeat'; readonly text: string; readonly length: number }
  | { readonly kind: 'counter'; readonly seed: string; readonly length: number }
  | { readonly kind: 'join'; readonly parts: readonly Recipe[] }

/** SHA-256(seed ":" n) for n = 0, 1, 2, …, one behind the other, cut to `length`. */
export function counterStream(seed: string, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(Math.ceil(length / 32) * 32)
  for (let n = 0; n * 32 < length; n++) hash('sha256', `${seed}:${n}`, 'buffer').copy(bytes, n * 32)
  return bytes.subarray(0, length)
}

export function makeInput(recipe: Recipe): Buffer {
  switch (recipe.kind) {
    case 'zeros':
      return Buffer.alloc(recipe.length)
    case 'repeat':
      return Buffer.alloc(recipe.length, recipe.text, 'utf8')
    case 'counter':
      return counterStream(recipe.seed, recipe.length)
    case 'join':
      return Buffer.concat(recipe.parts.map(makeInput))
  }
}
