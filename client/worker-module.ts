/** A worker's file beside `from`: TypeScript in a checkout, JavaScript in the package. */
export function workerModule(from: string, name: string): URL {
  return new URL(`./${name}.${from.endsWith('.ts') ? 'ts' : 'js'}`, from)
}
